"""Measuring a stage's result against the true object, and the pictures that show both."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.assets.reading.read import assumed_up, read_mesh, read_scene
from dreampolish.assets.reading.repainting.gltf_back import gltf_of_scene
from dreampolish.assets.reading.scene import Look
from dreampolish.assets.reading.source import open_mesh_file
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.metrics.pictures import mask_iou, mean_normal_angle, psnr, ssim
from dreampolish.metrics.surfaces import SurfaceSamples, roughness_deg, sample_surface, seen_from, surface_distance
from dreampolish.scene.cameras import Cameras, orbit_cameras
from dreampolish.scene.cutout import OBJECT_RADIUS
from dreampolish.scene.pictures import read_picture, resize, write_picture
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.results.surfaces import View, ViewableResult, opened_from_textured

N_VIEWS = 16
ELEVATIONS_DEG = (5.0, 35.0)
SIZE = 128
N_POINTS = 30_000
EYES_DEG = ((-40.0, 8), (0.0, 12), (35.0, 12), (70.0, 8))
"""Elevations, and how many eyes all around there: what none of them sees of a surface does not count in its distances."""
THRESHOLD_SHARE = 0.02
"""Of the true bounding box's diagonal: the F-score's threshold."""

ROUGHNESS_REACH = 0.02
"""World units around a point, two pixels of the fixed views: what is rough on this scale is seen as bumps."""

SHOWN = (0, 3, 4, 7, 8, 11, 12, 15)
"""Which of the views are on the contact sheet."""

HIGHEST_PSNR = 99.0
"""Stands for infinity, which no table and no tracker takes."""

LEAST_FRAMING_IOU = 0.9
"""Between the silhouettes of reference.png and of the true mesh from the front; below it they are not the same picture."""


@dataclass(frozen=True)
class Truth:
    """The true object: its pictures from the fixed views and from the front, and points on the surface that can be seen, with their
    roughness."""

    cameras: Cameras
    front: Cameras
    views: View
    front_view: View
    samples: SurfaceSamples
    roughness_deg: float


def novel_cameras(size: int) -> Cameras:
    """The fixed views: evenly spaced azimuths, half a step off the front, elevations in turn from ELEVATIONS_DEG."""
    number = torch.arange(N_VIEWS)
    azimuth = (number + 0.5) * (360 / N_VIEWS)
    elevation = torch.tensor(ELEVATIONS_DEG)[number % len(ELEVATIONS_DEG)]
    return orbit_cameras(azimuth, elevation, torch.full((N_VIEWS,), REFERENCE_FOV_DEG), size)


def front_camera(elevation_deg: float, size: int) -> Cameras:
    """Where the reference picture was taken from."""
    return picture_camera(0.0, elevation_deg, size)


def picture_camera(azimuth_deg: float, elevation_deg: float, size: int) -> Cameras:
    """Where a picture was taken from."""
    azimuth, elevation, fov = torch.tensor([[azimuth_deg], [elevation_deg], [REFERENCE_FOV_DEG]])
    return orbit_cameras(azimuth, elevation, fov, size)


def true_mesh(glb: Path, device: torch.device) -> TexturedMesh:
    """A GLB's object in the canonical frame: centred, inside a sphere of OBJECT_RADIUS. Raises ValueError if it cannot be read."""
    return read_mesh(glb).normalized(OBJECT_RADIUS).to(device)


def bare_glb(glb: Path) -> bytes:
    """A GLB of the same shape without colours, pictures and coordinates of pictures. Raises ValueError if it cannot be read."""
    files = open_mesh_file(glb)
    scene = read_scene(files)
    parts = tuple(replace(part, look=Look(part.look.name), uv=None, colors=None) for part in scene.parts)
    unit = scene.metres_per_unit or 1.0
    return gltf_of_scene(replace(scene, parts=parts), assumed_up(scene, files), unit, glb.stem).files.content


def truth_of(mesh: TexturedMesh, elevation_deg: float) -> Truth:
    """Render and sample a true object. elevation_deg: of its reference picture."""
    opened, device = opened_from_textured(mesh), mesh.vertices.device
    cameras, front = novel_cameras(SIZE).to(device), front_camera(elevation_deg, SIZE).to(device)
    samples = sampled(opened)
    return Truth(
        cameras,
        front,
        views=rendered(opened, cameras),
        front_view=opened.render(front),
        samples=samples,
        roughness_deg=roughness_deg(samples, ROUGHNESS_REACH),
    )


def rendered(opened: ViewableResult, cameras: Cameras) -> View:
    """All views, one camera at a time to bound memory."""
    views = [opened.render(cameras[[index]]) for index in range(len(cameras))]
    return View(*(torch.cat(parts) for parts in zip(*((v.rgb, v.alpha, v.normals_camera) for v in views), strict=True)))


def sampled(opened: ViewableResult) -> SurfaceSamples:
    """Points of the surface that can be seen, the same every time; closed cavities and whatever else no eye sees are left out."""
    vertices, faces = opened.mesh()
    points = sample_surface(vertices, faces, N_POINTS, torch.Generator().manual_seed(0))
    return points.only(seen_from(points.points, vertices, faces, _eyes().to(vertices.device)))


def _eyes() -> Float[Tensor, "e 3"]:
    rings = [
        orbit_cameras(torch.arange(count) * (360 / count), torch.full((count,), elevation), torch.full((count,), 20.0), SIZE)
        for elevation, count in EYES_DEG
    ]
    return torch.cat([ring.world_from_camera[:, :3, 3] for ring in rings])


def solid(views: View) -> Float[Tensor, "n h w 3"]:
    """Pictures without half tones at outlines: what is more than half covered in its own colour, the rest white.

    Half transparent fields gain in PSNR where they are unsure of an outline; no mesh can."""
    alpha = views.alpha[..., None]
    own = ((views.rgb - (1 - alpha)) / alpha.clamp_min(0.5)).clamp(0, 1)
    return torch.where(alpha > 0.5, own, torch.ones_like(own))


def mean_color(view: View) -> Float[Tensor, " 3"]:
    """Mean colour of what a picture shows, by coverage. Raises ValueError where it shows nothing."""
    alpha = view.alpha[..., None]
    if not bool((alpha > 0).any()):
        raise ValueError("the picture shows nothing")
    return ((view.rgb - (1 - alpha)).sum(dim=(0, 1, 2)) / alpha.sum()).clamp(0, 1)


def in_one_color(opened: ViewableResult, color: Float[Tensor, " 3"]) -> ViewableResult:
    """The same shape without its texture."""

    def render(cameras: Cameras) -> View:
        view = opened.render(cameras)
        alpha = view.alpha[..., None]
        return View(color * alpha + (1 - alpha), view.alpha, view.normals_camera)

    return ViewableResult(render, opened.mesh)


def measured(opened: ViewableResult, truth: Truth) -> tuple[dict[str, float], Float[Tensor, "n h w 3"]]:
    """All figures of a result against the truth, and its pictures for the contact sheet. Raises ValueError without a surface."""
    views = rendered(opened, truth.cameras)
    return compared(opened, views, truth), views.rgb[list(SHOWN)].cpu()


def compared(opened: ViewableResult, views: View, truth: Truth) -> dict[str, float]:
    """All figures of a result whose pictures from the truth's fixed views are there already. Raises ValueError without a surface."""
    front = opened.render(truth.front)
    samples = sampled(opened)
    distance = surface_distance(samples, truth.samples, THRESHOLD_SHARE)
    figures = {
        "psnr": _bounded(psnr(views.rgb, truth.views.rgb)),
        "psnr_solid": _bounded(psnr(solid(views), solid(truth.views))),
        "ssim": float(ssim(views.rgb, truth.views.rgb).mean()),
        "mask_iou": float(mask_iou(views.alpha, truth.views.alpha).mean()),
        "chamfer": distance.chamfer,
        "f_score": distance.f_score,
        "roughness_deg": roughness_deg(samples, ROUGHNESS_REACH) - truth.roughness_deg,
        "reference_psnr": _bounded(psnr(front.rgb, truth.front_view.rgb)),
        "reference_ssim": float(ssim(front.rgb, truth.front_view.rgb).mean()),
    }
    common = ((views.alpha > 0.5) & (truth.views.alpha > 0.5)).float()
    if bool(common.any()):
        angle = mean_normal_angle(_unit(views.normals_camera), _unit(truth.views.normals_camera), common)
        figures["normal_angle_deg"] = float(angle.nanmean())
    return figures


def _bounded(decibels: Float[Tensor, " n"]) -> float:
    return float(decibels.clamp(max=HIGHEST_PSNR).mean())


def _unit(normals: Tensor) -> Tensor:
    return torch.nn.functional.normalize(normals, dim=-1, eps=1e-6)


def framing_iou(picture: Path, mesh: TexturedMesh, elevation_deg: float) -> float:
    """How well the silhouette of a reference picture (RGBA) fits the true mesh seen from the front, 0..1."""
    device = mesh.vertices.device
    alpha = resize(read_picture(picture)[None, ..., 3:], SIZE)[..., 0].to(device)
    return float(mask_iou(alpha, opened_from_textured(mesh).render(front_camera(elevation_deg, SIZE).to(device)).alpha))


def write_reference(path: Path, mesh: TexturedMesh, elevation_deg: float, size: int) -> None:
    """The true front picture, RGBA, for an object that came without one."""
    write_picture_from(path, mesh, front_camera(elevation_deg, size))


def write_picture_from(path: Path, mesh: TexturedMesh, camera: Cameras) -> None:
    """A true picture, RGBA."""
    view = opened_from_textured(mesh).render(camera.to(mesh.vertices.device))
    alpha = view.alpha[0, ..., None]
    colour = torch.where(alpha > 1e-3, (view.rgb[0] - (1 - alpha)) / alpha.clamp_min(1e-3), torch.ones_like(view.rgb[0]))
    write_picture(path, torch.cat([colour, alpha], dim=-1))
