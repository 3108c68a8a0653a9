"""Pictures of a mesh under its own textures: of true objects for references and measurements, and of finished assets."""

from dreampolish.cameras import Cameras
from dreampolish.mesh.textured import TexturedMesh
from dreampolish.renderers.raster import rasterize
from dreampolish.renderers.raster_mesh import MeshRender, shaded


def render_textured_mesh(mesh: TexturedMesh, cameras: Cameras, supersample: int, cull_backfaces: bool) -> MeshRender:
    """Unlit: texture colours as they are, on white. Normals are the mesh's own, turned to the viewer on faces seen from behind.

    supersample: samples along a pixel's side; textures have no mip levels, so 2 or more is wise. cull_backfaces: for closed meshes
    with outward faces only; foreign files may be neither.
    """
    fine = cameras.at_size(cameras.size * supersample)
    fragments = rasterize(mesh.vertices, mesh.faces, fine, cull_backfaces)
    return shaded(
        fragments,
        mesh.vertices,
        mesh.faces,
        mesh.normals,
        fine,
        lambda points, normals: mesh.color_of(fragments),
        supersample,
        mesh.adjacency,
    )
