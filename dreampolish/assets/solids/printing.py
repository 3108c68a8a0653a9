"""A mesh as one closed body for a printer, in millimetres, and what is certain of it.

A mesh that manifold3d takes is printed as it is. Another one is made anew from its signed distances, which are closed whatever the mesh
was. Lengths are millimetres, z is up, the body stands on z = 0.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import trimesh
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from jaxtyping import Float, Int
from skimage.measure import marching_cubes
from torch import Tensor

from dreampolish.assets.solids.mesh_to_sdf import sdf_from_mesh
from dreampolish.fields.density_to_sdf import EmptyFieldError

CRUMB_SHARE = 0.01
"""Bodies below this share of the largest one's volume are dropped. [choice]"""

RESOLUTION = 192
"""Lattice points of a side for a mesh that is made anew. [choice]"""

SHEET_STEPS = 2.0
"""Thickness of sheets of such a mesh, lattice steps."""

WALL_SAMPLES = 20_000
"""Places of the surface at which the wall is measured."""

FACING = 0.5
"""Cosine from which the far side of a wall faces away from the near one; sharp edges are no walls. [choice]"""

BACKSTEP = 1e-5
"""Share of the longest side by which a ray starts below its place."""

MARGIN = 1.05
"""Half side of the box around a mesh that is made anew, in that of the mesh."""

Kind = Literal["stl", "3mf"]


class PrintError(ValueError):
    """A mesh cannot be printed as one body; the message says why and what to do."""


@dataclass(frozen=True)
class Body:
    """One closed body, millimetres. remade: whether it was made anew. dropped: crumbs that were left out."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    remade: bool
    dropped: int


@dataclass(frozen=True)
class Certificate:
    """What was found in the written file, read again. Lengths: millimetres; thinnest_mm, thin_share: of walls, see `walls`."""

    watertight: bool
    bodies: int
    triangles: int
    box_mm: tuple[float, float, float]
    volume_cm3: float
    base_mm2: float
    thinnest_mm: float
    thin_share: float
    thin_below_mm: float
    remade: bool
    dropped_crumbs: int

    @property
    def sound(self) -> bool:
        """Whether it is one closed body."""
        return self.watertight and self.bodies == 1


def body_of_mesh(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], longest_side_mm: float, flat_base_mm: float
) -> Body:
    """One closed body of a mesh with z up, its longest side so long. flat_base_mm: height that is cut off below; 0: none.

    Raises PrintError where the mesh holds several bodies, or encloses nothing.
    """
    manifold = _library()
    size = vertices.amax(0) - vertices.amin(0)
    scaled = (vertices - vertices.amin(0)) * (longest_side_mm / float(size.max()))
    solid = _taken(manifold, scaled.cpu().numpy(), faces.cpu().numpy())
    remade = solid is None
    if solid is None:
        solid = _taken(manifold, *_made_anew(scaled.cpu().float(), faces.cpu()))
    if solid is None:
        raise PrintError("the mesh encloses no body that could be printed")
    solid, dropped = _one_body(manifold, solid)
    if flat_base_mm > 0:
        solid, cut = _one_body(manifold, solid.trim_by_plane((0, 0, 1), solid.bounding_box()[2] + flat_base_mm))
        dropped += cut
    low, high = np.array(solid.bounding_box()[:3]), np.array(solid.bounding_box()[3:])
    found = solid.to_mesh()
    places = np.asarray(found.vert_properties, np.float64)[:, :3]
    places = (places - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]) * (longest_side_mm / (high - low).max())
    return Body(vertices=places, faces=np.asarray(found.tri_verts, np.int64), remade=remade, dropped=dropped)


def _library() -> Any:
    try:
        import manifold3d
    except ImportError:
        raise PrintError("printing needs the package manifold3d: pip install 'dreampolish[print]'") from None
    return manifold3d


def _taken(manifold: Any, vertices: np.ndarray, faces: np.ndarray) -> Any:
    """The mesh as manifold3d's solid, its parts united; None where it is none."""
    given = manifold.Mesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32))
    given.merge()
    solid = manifold.Manifold(given)
    if solid.status() != manifold.Error.NoError or solid.is_empty():
        return None
    # A part with a negative volume is a cavity, or turned inside out: a print is solid.
    parts = [part for part in solid.decompose() if part.volume() > 0]
    if not parts:
        return None
    return manifold.Manifold.batch_boolean(parts, manifold.OpType.Add)


def _made_anew(vertices: Tensor, faces: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A closed surface around what a mesh encloses, by winding numbers."""
    center = (vertices.amax(0) + vertices.amin(0)) / 2
    half = float((vertices.amax(0) - vertices.amin(0)).max()) / 2
    spacing = 2 * MARGIN / (RESOLUTION - 1)
    try:
        grid = sdf_from_mesh(
            vertices=(vertices - center) / half,
            faces=faces,
            resolution=RESOLUTION,
            half_size=MARGIN,
            sheet_thickness=SHEET_STEPS * spacing,
        )
    except EmptyFieldError:
        raise PrintError("the mesh encloses nothing that could be printed: thicken it") from None
    places, found, _, _ = marching_cubes(grid.values.numpy(), 0.0, spacing=(spacing,) * 3, gradient_direction="descent")
    return (places - MARGIN) * half + center.numpy(), found


def _one_body(manifold: Any, solid: Any) -> tuple[Any, int]:
    """The largest body, and how many crumbs beside it were dropped. Raises PrintError for several bodies."""
    bodies = sorted((part for part in solid.decompose() if part.volume() > 0), key=lambda part: -part.volume())
    if not bodies:
        raise PrintError("nothing is left of the body; cut less off for the flat base")
    large = [part for part in bodies if part.volume() >= CRUMB_SHARE * bodies[0].volume()]
    if len(large) > 1:
        shares = ", ".join(f"{part.volume() / sum(each.volume() for each in bodies):.0%}" for part in large[:5])
        raise PrintError(
            f"the mesh holds {len(large)} bodies that do not touch ({shares} of the volume); they would come apart: join them in a "
            "modelling program, or export without --print"
        )
    return large[0], len(bodies) - 1


def written(body: Body, kind: Kind, name: str) -> bytes:
    """The body as a file. 3MF says that its unit is the millimetre; STL has no unit, and printers take millimetres."""
    mesh = trimesh.Trimesh(body.vertices, body.faces, process=False)
    if kind == "stl":
        header = f"binary STL, z up, millimetres: {name}".encode()[:80].ljust(80, b" ")
        return header + bytes(mesh.export(file_type="stl"))[80:]
    scene = trimesh.Scene({name: mesh})
    scene.units = "millimeter"
    try:
        return bytes(scene.export(file_type="3mf"))
    except NameError:
        # trimesh imports lxml where it is there.
        raise PrintError("3MF needs the package lxml: pip install 'dreampolish[print]'") from None


def certificate(content: bytes, kind: Kind, body: Body, thin_below_mm: float) -> Certificate:
    """What a reader finds in the file. Raises PrintError where it is not one closed body."""
    scene = trimesh.load_scene(io.BytesIO(content), file_type=kind)
    mesh = scene.to_mesh()
    thinnest, share = walls(mesh, thin_below_mm)
    flat = (mesh.face_normals[:, 2] < -0.999) & (mesh.triangles[:, :, 2].max(axis=1) < 1e-3)
    width, depth, height = (round(float(side), 3) for side in mesh.extents)
    found = Certificate(
        watertight=bool(mesh.is_watertight and mesh.is_winding_consistent),
        bodies=int(mesh.body_count),
        triangles=len(mesh.faces),
        box_mm=(width, depth, height),
        volume_cm3=float(mesh.volume) / 1000,
        base_mm2=float(mesh.area_faces[flat].sum()),
        thinnest_mm=thinnest,
        thin_share=share,
        thin_below_mm=thin_below_mm,
        remade=body.remade,
        dropped_crumbs=body.dropped,
    )
    if not found.sound:
        raise PrintError(f"the written file is no single closed body ({found.bodies} bodies): report it")
    return found


def walls(mesh: trimesh.Trimesh, thin_below: float) -> tuple[float, float]:
    """The thinnest wall of a closed mesh, and the share of the surface whose wall is thinner than `thin_below`.

    The wall at a place is the way straight inward to the far side, where that faces away. The mesh's units; places are drawn with a
    fixed seed.
    """
    places, faces = trimesh.sample.sample_surface(mesh, WALL_SAMPLES, seed=0)
    inward = -mesh.face_normals[faces]
    step = BACKSTEP * float(mesh.extents.max())
    scene = rtcore_scene.EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(mesh.triangles, np.float32))
    origins = np.ascontiguousarray(places + step * inward, np.float32)
    found = scene.run(origins, np.ascontiguousarray(inward, np.float32), output=True)
    far = np.asarray(found["primID"], np.int64)
    opposite = (far >= 0) & ((mesh.face_normals[far] * inward).sum(axis=1) > FACING)
    if not opposite.any():
        return float(mesh.extents.min()), 0.0
    thickness = np.asarray(found["tfar"], np.float64)[opposite] + step
    return float(thickness.min()), float((thickness < thin_below).mean())


def told(found: Certificate) -> Sequence[str]:
    """The certificate in words, a sentence each."""
    box = " x ".join(f"{side:g}" for side in found.box_mm)
    lines = [
        f"one closed body of {box} mm, {found.volume_cm3:.3g} cm3, {found.triangles:,} triangles",
        f"thinnest wall {found.thinnest_mm:.2f} mm; {found.thin_share:.1%} of the surface is thinner than {found.thin_below_mm:g} mm",
    ]
    lines += [f"flat base of {found.base_mm2:.0f} mm2"] if found.base_mm2 > 0 else []
    lines += ["the mesh was not closed: its surface was made anew, without its sharpest edges"] if found.remade else []
    lines += [f"{found.dropped_crumbs} crumbs beside the body were left out"] if found.dropped_crumbs else []
    return lines
