"""What pictures from known cameras say of the colours of a mesh's surface, and what the rest of it takes from there."""

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from dreampolish.renderers.mesh import Mesh
from dreampolish.scene.cameras import Cameras

FILLED = 0.95
"""Coverage of a pixel from which its colour is the object's own. [choice]"""

NEAREST = 8
"""Places whose mean colour a place gets that no picture shows. [choice]"""


def spread_colors(
    mesh: Mesh, points: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], generator: torch.Generator
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 3"]]:
    """Places within the faces, half as many as the points, with the mean colour of the points nearest to each."""
    face = torch.randint(len(mesh.faces), (max(len(points) // 2, 1),), generator=generator, device=points.device)
    shares = torch.rand(len(face), 3, generator=generator, device=points.device)
    shares = shares / shares.sum(-1, keepdim=True)
    places = (shares[..., None] * mesh.vertices[mesh.faces[face]]).sum(1)
    count = min(NEAREST, len(points))
    nearest = cKDTree(points.cpu().numpy()).query(places.cpu().numpy(), k=range(1, count + 1))[1]
    return places, colors[torch.from_numpy(nearest).to(colors.device)].mean(1)


def surface_colors(
    mesh: Mesh, camera: Cameras, picture: Float[Tensor, "1 h w 3"], covered: Float[Tensor, "1 h w"], facing: float
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """The places that one camera sees from the front, and a picture's colours there; no gradient.

    covered: how much of each pixel the object in the picture covers. facing: least cosine between a place's normal and the way to the
    camera. Pixels that either object does not fill do not count.
    """
    with torch.no_grad():
        render = mesh.render(camera.at_size(picture.shape[1]), lambda points, normals: torch.zeros_like(points), 1, smooth=True)
        whole = torch.minimum(render.alpha, covered) > FILLED
        away = torch.nn.functional.normalize(camera.world_from_camera[0, :3, 3] - render.points_world, dim=-1)
        counts = whole & ((away * render.normals_world).sum(-1) > facing)
    return render.points_world[counts], picture[counts]
