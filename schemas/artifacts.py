"""What stages hand over: one class a hand-over, JSON scalars and file references only; heavy data is in the files."""

from typing import Literal, TypeGuard, get_args

from pydantic import Field, FiniteFloat, JsonValue

from schemas.base import Frozen

StageName = Literal["intake", "reference", "nerf", "neus", "dmtet", "polish", "texture", "export"]
"""The stages, in the order of the chain, behind that of a user's own mesh."""

Digest = str
"""64 lower-case hexadecimal digits of a SHA-256."""


class FileRef(Frozen):
    """A file of an artifact. `path` is relative to the artifact's own folder."""

    path: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=200)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Artifact(Frozen):
    """Common to all: identity, ancestry, figures of the computation itself."""

    schema_version: Literal[2] = 2
    stage: StageName | Literal["scores"]
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The key under which the store holds it."""
    parents: dict[str, Digest]
    """Keys of the artifacts this one was made from, by stage."""
    metrics: dict[str, FiniteFloat]
    seconds: FiniteFloat = Field(ge=0)
    peak_memory: int = Field(ge=0)
    """Largest resident size of the process while the stage ran, bytes."""
    cuda_peak_memory: int = Field(default=0, ge=0)
    """Most that tensors took of GPUs while the stage ran, bytes; 0 on a CPU."""
    notes: tuple[str, ...] = ()
    """Things a user should hear about, one sentence each (why the stage ended early, words the prior does not know)."""


def stage_of(artifact_class: type[Artifact]) -> StageName:
    """The stage that makes artifacts of a class."""
    name: StageName = artifact_class.model_fields["stage"].default
    return name


def artifact_class_of(name: str) -> type[Artifact]:
    """The class of what a stage makes, or of `scores`. Raises KeyError for another name."""
    return {str(stage_of(each)): each for each in _kinds(Artifact)}[name]


def _kinds(base: type[Artifact]) -> list[type[Artifact]]:
    """All classes of artifacts below a class."""
    return [kind for each in base.__subclasses__() for kind in (each, *_kinds(each))]


def is_artifact(annotation: object) -> TypeGuard[type[Artifact]]:
    """Whether an annotation is a class of artifacts."""
    return isinstance(annotation, type) and issubclass(annotation, Artifact)


def artifact_or_none(annotation: object) -> type[Artifact] | None:
    """The class of an artifact that may be None; None for any other annotation."""
    kinds = [each for each in get_args(annotation) if each is not type(None)]
    return kinds[0] if len(kinds) == 1 and is_artifact(kinds[0]) else None


class ReferencePicture(Frozen):
    """Another picture of the object, made canonical as the reference is; its mask is the alpha of `image_rgba`."""

    image: FileRef
    image_rgba: FileRef
    normals: FileRef
    depth: FileRef | None = None
    azimuth_deg: FiniteFloat
    elevation_deg: FiniteFloat


class ReferenceArtifact(Artifact):
    """The reference picture, its mask and normals."""

    stage: Literal["reference"] = "reference"
    image: FileRef
    """RGB PNG on white."""
    image_rgba: FileRef
    mask: FileRef
    """Greyscale PNG, 255 on the object."""
    normals: FileRef
    """Safetensors, tensor `normals_camera` (H, W, 3)."""
    depth: FileRef | None = None
    """Safetensors, tensor `depth` (H, W), growing away from the viewer; None where no depth prior was named."""
    candidates: FileRef | None
    """PNG sheet of all candidates; None for a user's picture."""
    prompt: str
    elevation_deg: float
    is_user_image: bool
    others: tuple[ReferencePicture, ...] = ()
    """A user's pictures from elsewhere than the front."""


class NerfArtifact(Artifact):
    """A density field."""

    stage: Literal["nerf"] = "nerf"
    field: FileRef
    """Safetensors of the field's state."""
    field_config: dict[str, JsonValue]
    occupancy: FileRef
    steps: int
    switch_reason: str


class SdfArtifact(Artifact):
    """A signed distance field with colours."""

    stage: Literal["neus"] = "neus"
    field: FileRef
    field_config: dict[str, JsonValue]
    occupancy: FileRef | None = None
    steps: int
    switch_reason: str


class MeshArtifact(Artifact):
    """A mesh from the tetrahedral grid."""

    stage: Literal["dmtet"] = "dmtet"
    mesh: FileRef
    """Safetensors: vertices (V, 3) float32, faces (F, 3) int64."""
    color_field: FileRef
    """Safetensors of the colour field's state; `color_config` rebuilds the field."""
    color_config: dict[str, JsonValue]
    n_vertices: int
    n_faces: int


class PolishedMeshArtifact(Artifact):
    """The mesh after the normal prior; files as in MeshArtifact."""

    stage: Literal["polish"] = "polish"
    mesh: FileRef
    color_field: FileRef
    color_config: dict[str, JsonValue]
    n_vertices: int
    n_faces: int


class Placement(Frozen):
    """Where the scene lies in a mesh file's own frame: scene point = (point of the file in our axes, turned, - center) / scale.

    up: the file's axis that points up. front_deg: azimuth of the object's front there; turned back by it, it faces +x. center and
    scale are in the file's unit, which is `metres_per_unit` long.
    """

    up: Literal["x", "y", "z"]
    front_deg: FiniteFloat
    center: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    scale: FiniteFloat = Field(gt=0)
    metres_per_unit: FiniteFloat = Field(gt=0)


class IntakeArtifact(PolishedMeshArtifact, MeshArtifact):
    """A user's mesh as the polish stage takes an extracted and the texture stage a polished one.

    Its mesh file also holds `painted` (F,), which faces are to be painted.
    """

    stage: Literal["intake"] = "intake"  # type: ignore[assignment]
    given: FileRef
    """The user's file with all that it names, as one archive."""
    placement: Placement
    only: str
    """The material that is to be painted, empty: all."""
    has_colors: bool
    """Whether the mesh came with colours that are worth keeping."""
    previews: tuple[FileRef, ...]
    """The mesh as it came, azimuth 0 first, then counter-clockwise."""


class TexturedMeshArtifact(Artifact):
    """The polished mesh, unchanged, and a colour field over space."""

    stage: Literal["texture"] = "texture"
    mesh: FileRef
    color_field: FileRef
    color_config: dict[str, JsonValue]
    n_vertices: int
    n_faces: int


AnyMesh = MeshArtifact | PolishedMeshArtifact | TexturedMeshArtifact
"""Every hand-over that holds a mesh and a colour field: what reads one of them reads all."""


class AssetArtifact(Artifact):
    """What the user came for."""

    stage: Literal["export"] = "export"
    glb: FileRef
    textures: dict[str, FileRef]
    """Baked maps by name: base_color, normal."""
    turntable: FileRef
    """Animated WebP or MP4."""
    n_vertices: int
    n_faces: int
    glb_bytes: int
    metres_per_unit: FiniteFloat = Field(default=1.0, gt=0)
    """The file's metres for one unit of the scene."""
    placement: Placement | None = None
    """Where the scene lies in the file, for a user's own mesh."""
    originals: dict[str, FileRef] = {}
    """The same asset in the format that the user's mesh came in, where that is written: files by name."""


class ScoresArtifact(Artifact):
    """How a stage's result looks: figures against the reference picture and the prompt, and the turntable's views."""

    stage: Literal["scores"] = "scores"
    previews: tuple[FileRef, ...]
    """Azimuth 0 first, then counter-clockwise."""
