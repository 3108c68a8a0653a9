"""A user's own mesh at the door: read once, kept in the store, and the settings that its use needs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreampolish.optim.atomic_files import write_atomically
from schemas.config.presets import ConfigError
from schemas.runs import MeshUse
from stages.runtime.command import input_path
from stages.runtime.files import disk_errors_in_one_line

STRENGTH = 0.6
"""How far a mesh's own colours may change where no `--strength` says so. [choice]"""

DRIFT = 60.0
"""The texture stage's usual weight of the drift; here at strength 0.5."""

FROM_NOTHING = (
    "texture.targets.rgb_weight=2000",
    "texture.targets.inside_only=true",
    "texture.targets.strength={start: 0.95, end: 0.4}",
    "texture.block_in_steps=400",
    "texture.grid.start_level=10",
    "texture.anchors.drift=0",
)
"""Settings for a mesh without colours: the view prior gives it its first ones."""

POLISHED = (
    "intake.tell_flaws=true",
    "polish.anchors={rgb: 0, mask: 1, normal: 0}",
    "polish.smoothness=0",
    "polish.silhouette_weight=0",
    "polish.displacement_weight=10000",
    "polish.normal_variation_weight=10",
    "polish.normal_weight=10",
)
"""Settings for polishing: the front's own normals and colours hold nothing, for they are what is polished. Bumps are where single
vertices are, so every vertex moves by itself; the outline of a rough mesh is that of its bumps and holds next to nothing. [choice]"""

UNPAINTED = (
    "reference.drawn_over=0",
    "reference.unknown_words=allow",
    "texture.steps=0",
    "export.repaint=false",
)
"""Settings for a mesh that is polished alone: its own front is the reference, and its colours stay."""

POLISH_BYTES = 2400
"""Memory that polishing takes for each triangle. (measured: docs/limits.md)"""

POLISH_BASE_BYTES = 1 << 30
"""Memory that it takes besides. (measured)"""


@dataclass(frozen=True)
class GivenMesh:
    """What a user asks of their own mesh.

    strength: 0..1, how far its colours may change; None: as far as its colours suggest. paint: whether they may at all. mend: whether
    its flaws are mended.
    """

    file: Path
    use: MeshUse = "texture"
    paint: bool = True
    mend: bool = False
    uv: str | None = None
    only: str | None = None
    strength: float | None = None
    up: str | None = None
    front_deg: float | None = None

    def settings(self, *, has_colors: bool) -> Sequence[str]:
        """`section.key=value` lines. Raises ConfigError for a strength outside 0..1."""
        lines = self._reading()
        if self.use == "start":
            return [*lines, "intake.tell_flaws=true"]
        if self.use == "polish":
            lines += [*POLISHED, *([] if has_colors else ["polish.lit=true"])]
        return [*lines, *(self._painting(has_colors=has_colors) if self.paint else UNPAINTED)]

    def _reading(self) -> list[str]:
        """How the file is read."""
        asked = {"export.uv": self.uv, "intake.up": self.up, "intake.front_deg": self.front_deg}
        lines = [f"{key}={value}" for key, value in asked.items() if value is not None]
        if self.only is not None:
            # Quoted: a material may be called 3 or true.
            lines.append("intake.only='" + self.only.replace("'", "''") + "'")
        return [*lines, *(["intake.mend=true"] if self.mend else [])]

    def _painting(self, *, has_colors: bool) -> Sequence[str]:
        """How it is painted."""
        strength = self.strength if self.strength is not None else STRENGTH if has_colors else 1.0
        if not 0 <= strength <= 1:
            raise ConfigError(f"--strength is {strength:g}; it lies between 0 (colours stay) and 1 (they may change freely)")
        return FROM_NOTHING if not has_colors else _settings_of_strength(strength)


def _settings_of_strength(strength: float) -> list[str]:
    """More strength: more noise, less hold on the colours that were there, less of their fine detail."""
    if strength == 0:
        return ["texture.steps=0", "export.repaint=false"]
    return [
        f"texture.anchors.drift={DRIFT * (1 / strength - 1):.4g}",
        f"texture.t_max={{start: {0.2 + 0.6 * strength:.4g}, end: 0.2}}",
        f"reference.drawn_over={0.3 + 0.6 * strength:.4g}",
        f"export.detail_kept={1 - strength:.4g}",
    ]


@dataclass(frozen=True)
class KeptMesh:
    """The hash under which a mesh lies in the store, whether it has colours of its own, and its triangles."""

    digest: str
    has_colors: bool
    triangles: int


def keep_mesh(store: Path, file: Path, only: str) -> KeptMesh:
    """Read a user's mesh and copy it with all that it names into the store. only: the material to be painted, empty: all.

    Raises ConfigError for a mesh that cannot be used or has no such material.
    """
    from dreampolish.assets.reading.read import assumed_up, joined, read_scene
    from dreampolish.assets.reading.repainting.layout import chosen_parts
    from dreampolish.assets.reading.scene import MeshError
    from dreampolish.assets.reading.source import archive_bytes, open_mesh_file
    from dreampolish.assets.reading.surface import is_one_colour

    try:
        files = open_mesh_file(file)
        scene = read_scene(files)
        found = joined(scene, assumed_up(scene, files), files.name)
        chosen_parts(scene.parts, only)
        payload = archive_bytes(files)
    except MeshError as error:
        raise ConfigError(str(error)) from None
    digest = hashlib.sha256(payload).hexdigest()
    path = input_path(store, digest)
    with disk_errors_in_one_line(store):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, payload)
    return KeptMesh(digest, not is_one_colour(found.mesh), len(found.mesh.faces))


def check_memory(name: str, triangles: int, free: int) -> None:
    """Raise ConfigError where polishing so many triangles would take more memory than is free, bytes, with the number that fits."""
    if POLISH_BASE_BYTES + triangles * POLISH_BYTES <= free:
        return
    fits = max(0, (free - POLISH_BASE_BYTES) // POLISH_BYTES // 1000 * 1000)
    raise ConfigError(
        f"{name} has {triangles:,} triangles; about {fits:,} can be polished in the {free / 2**30:.1f} GiB that are free: "
        "decimate it first"
    )
