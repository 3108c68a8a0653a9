"""Separating the light of a drawn reference from a surface's own colours.

The embedded text prior was trained in one light, the studio's (dreampolish/scene/lighting.py), in which a back is 0.6 times as bright as
a front. The view prior paints the other views in the same light, but some objects flatter than others. So the share of that light in a
surface's colours is measured. The light of a user's picture is unknown, and nothing is removed. [choice]
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.mesh.topology import vertex_normals
from dreampolish.renderers.mesh import ColorOf, Mesh, MeshRender, shaded
from dreampolish.renderers.rasterizer import rasterize
from dreampolish.scene.cameras import Cameras
from dreampolish.scene.lighting import mean_studio_lighting
from dreampolish.scene.shading import shade
from schemas.config.dmtet import LightConfig
from stages.guidance.reference_view import ReferenceView

DARKEST = 0.02
"""Colours below this count as this much, for logarithms. [choice]"""
LEAST_SUM = 0.05
"""Sum of a colour's channels below which its chromaticity shrinks towards 0. [choice]"""
BEST_COVERED = 0.95
"""Share of the best coverage from which the reference's pixels tell its main colour. [choice]"""
SLOPE_ROUNDS = 10
"""Rounds of reweighted least squares. [choice]"""
SLOPE_SOFTNESS = 0.05
"""Added to the residuals (natural logarithms) before they become weights. [choice]"""
LEAST_SPREAD = 1e-6
"""Mean square spread of the light's logarithm below which it has no slope."""


@dataclass(frozen=True)
class PaintedLight:
    """The light in painted views: a surface shows its colour times `factor` of its normal.

    shares: of the studio's contrast in red, green and blue, 0 to 1; they differ where shade is painted less saturated.
    """

    shares: tuple[float, float, float]

    def factor(self, normals_world: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """At most 1, and 1 for what is lit at least as brightly as a surface that faces along +x, to the front."""
        return studio_factor(normals_world) ** normals_world.new_tensor(self.shares)

    @property
    def figures(self) -> dict[str, float]:
        """The shares as metrics."""
        return {f"light_removed_{channel}": share for channel, share in zip(("red", "green", "blue"), self.shares, strict=True)}

    def on(self, color_of: ColorOf) -> ColorOf:
        """Colours in this light."""
        if self == NO_LIGHT:
            return color_of
        return lambda points, normals: color_of(points, normals) * self.factor(normals.detach())

    def removed(self, colors: Float[Tensor, "n 3"], normals_world: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """The colours that look like these in this light, at most 1."""
        return (colors / self.factor(normals_world)).clamp(max=1.0)


NO_LIGHT = PaintedLight((0.0, 0.0, 0.0))


def studio_factor(normals_world: Float[Tensor, "n 3"]) -> Float[Tensor, "n 1"]:
    """The studio's Lambertian light on unit normals, over that on a surface that faces along +x, to the front; at most 1.

    What faces up, or up and forward, is 1.1 to 1.3 times as bright and counts as 1: the reference's anchor keeps it as drawn.
    """
    light = mean_studio_lighting(1).to(normals_world.device)
    front = torch.tensor([[1.0, 0.0, 0.0]], device=normals_world.device)
    normals = torch.cat([normals_world, front]).to(torch.float32)
    shades = shade(normals.T[None, :, :, None], light)[0, 0]
    return (shades[:-1] / shades[-1]).clamp(max=1.0)


def smooth_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], rounds: int) -> Float[Tensor, "v 3"]:
    """Unit normals of the vertices without the surface's bumps: each becomes the mean of its faces' corners, `rounds` times."""
    normals, corners = vertex_normals(vertices, faces), faces.reshape(-1)
    for _ in range(rounds):
        of_faces = normals[faces].sum(dim=1).repeat_interleave(3, dim=0)
        normals = torch.nn.functional.normalize(torch.zeros_like(normals).index_add(0, corners, of_faces), dim=-1)
    return normals


def render_in_light(
    mesh: Mesh, cameras: Cameras, color_of: ColorOf, light: PaintedLight, supersample: int, smoothing_rounds: int
) -> MeshRender:
    """Pictures of a mesh in a light, which falls on its smoothed normals; the render's own normals are these."""
    if light == NO_LIGHT:
        return mesh.render(cameras, color_of, supersample, smooth=True)
    fine = cameras.at_size(cameras.size * supersample)
    fragments = rasterize(mesh.vertices, mesh.faces, fine, cull_backfaces=False)
    normals = smooth_normals(mesh.vertices, mesh.faces, smoothing_rounds)
    return shaded(
        fragments=fragments,
        vertices=mesh.vertices,
        faces=mesh.faces,
        normals_of_vertices=normals,
        cameras=fine,
        color_of=light.on(color_of),
        supersample=supersample,
        adjacency=mesh.adjacency,
    )


def measured_light(
    colors: Float[Tensor, "n 3"], normals_world: Float[Tensor, "n 3"], view: ReferenceView, config: LightConfig
) -> PaintedLight:
    """How much of the studio's light is in a surface's colours.

    For each channel the slope of its log over that of `studio_factor`, by least absolute deviations, bounded to 0..1, over the places in
    the reference's main colour: a car's windows are not a car in the shade. None where too few are in it.
    """
    near = (_chromaticity(colors) - _main_chromaticity(view)).norm(dim=-1) < config.near
    asked = near & (normals_world[:, 2] > config.least_normal_up)
    if int(asked.sum()) < max(config.least_share * len(colors), 2):
        return NO_LIGHT
    darkness = studio_factor(normals_world[asked])[:, 0].log()
    slopes = [_robust_slope(darkness, channel) for channel in colors[asked].clamp_min(DARKEST).log().unbind(-1)]
    red, green, blue = (min(max(slope, 0.0), 1.0) for slope in slopes)
    return PaintedLight((red, green, blue))


def _chromaticity(colors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    return colors / colors.sum(-1, keepdim=True).clamp_min(LEAST_SUM)


def _main_chromaticity(view: ReferenceView) -> Float[Tensor, " 3"]:
    """Per channel, the median over the pixels that the reference's object covers best."""
    return _chromaticity(view.rgb[view.mask >= BEST_COVERED * view.mask.max()]).median(dim=0).values


def _robust_slope(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> float:
    """Of the line of least absolute deviations, by reweighted least squares; 0 where x does not vary."""
    weights, slope = torch.ones_like(x), 0.0
    for _ in range(SLOPE_ROUNDS):
        from_x, from_y = x - (weights * x).sum() / weights.sum(), y - (weights * y).sum() / weights.sum()
        spread = float((weights * from_x.square()).sum())
        if spread < LEAST_SPREAD * len(x):
            return 0.0
        slope = float((weights * from_x * from_y).sum()) / spread
        residuals = from_y - slope * from_x
        weights = 1 / ((residuals - residuals.median()).abs() + SLOPE_SOFTNESS)
    return slope
