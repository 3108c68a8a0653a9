"""Whether a 3D file is what its format wants: GLB by the Khronos validator or our own checks, the others by reading them again."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from dreampolish.assets.usdz import usdz_findings
from dreampolish.assets.validate_glb import Told, glb_findings

FORMATS = ("glb", "obj", "ply", "stl", "usdz")


@dataclass(frozen=True)
class Findings:
    """What a check says of one file, one sentence each. checker: who looked. figures: what the file holds."""

    checker: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    figures: dict[str, float]


def findings_of(path: Path, node_modules: Sequence[Path]) -> Findings:
    """Check a file by the ending of its name.

    node_modules: folders where npm's `gltf-validator` may lie; where it or node is not to be had, GLBs get our own structural checks.
    Raises ValueError for an ending that is not in FORMATS and OSError for a file that cannot be read.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ValueError(f"{path.name} ends in none of {', '.join('.' + entry for entry in FORMATS)}")
    content = path.read_bytes()
    if kind == "usdz":
        return Findings("usd-core", *usdz_findings(path))
    if kind != "glb":
        return _reread(path, kind, content)
    told = khronos_findings(path, node_modules)
    if told is not None:
        return Findings("Khronos glTF validator", *told)
    return Findings("structural checks", *glb_findings(content))


def _reread(path: Path, kind: str, content: bytes) -> Findings:
    """What trimesh finds in a file, with the pictures and libraries it names."""
    errors = list(_truncated_stl(content)) if kind == "stl" else []
    try:
        mesh = trimesh.load_mesh(path, process=False)
    except Exception as error:
        # A reader of damaged files raises anything at all.
        return Findings("trimesh", (f"cannot be read: {error or type(error).__name__}",), (), {})
    faces = np.asarray(getattr(mesh, "faces", ()))
    if len(faces) == 0:
        return Findings("trimesh", (*errors, "holds no triangles"), (), {})
    if not np.isfinite(mesh.vertices).all():
        errors.append("a coordinate is not finite")
    if faces.max() >= len(mesh.vertices) or faces.min() < 0:
        errors.append("a face names a vertex that is not there")
    if kind == "obj":
        errors += [f"{missing} is named but not there" for missing in _missing_of_obj(path)]
    longest = float(np.ptp(mesh.vertices, axis=0).max()) if not errors else 0.0
    return Findings("trimesh", tuple(errors), (), {"triangles": float(len(faces)), "longest_side": longest})


def _truncated_stl(content: bytes) -> list[str]:
    """A binary STL's length follows from its count."""
    if content[:5] == b"solid" and b"facet" in content[:1000]:
        return []
    if len(content) < 84:
        return ["is shorter than an STL's header"]
    expected = 84 + 50 * int.from_bytes(content[80:84], "little")
    return [] if len(content) == expected else [f"has {len(content)} bytes, its count of faces says {expected}"]


def _missing_of_obj(path: Path) -> list[str]:
    """Material libraries and pictures that an OBJ names and that do not lie beside it."""
    missing = []
    for library in _named(path, ("mtllib",)):
        if not library.is_file():
            missing.append(library.name)
            continue
        missing += [picture.name for picture in _named(library, ("map_Kd", "norm", "map_Bump")) if not picture.is_file()]
    return missing


def _named(path: Path, keywords: tuple[str, ...]) -> list[Path]:
    lines = (line.split() for line in path.read_text(errors="replace").splitlines())
    return [path.parent / words[-1] for words in lines if len(words) > 1 and words[0] in keywords]


SECONDS = 120
_SCRIPT = """
const validator = require('gltf-validator');
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[1]));
validator.validateBytes(bytes, {maxIssues: 1000, writeTimestamp: false}).then(
  report => process.stdout.write(JSON.stringify(report)),
  error => { process.stderr.write(String(error)); process.exit(3); });
"""


def khronos_findings(path: Path, node_modules: Sequence[Path]) -> Told | None:
    """Errors, warnings and figures of a GLB; None without node or the package `gltf-validator` in one of the folders.

    `npm install gltf-validator` makes it available. Raises ValueError where the validator itself fails.
    """
    node = shutil.which("node")
    folders = [folder for folder in node_modules if (folder / "gltf-validator").is_dir()]
    if node is None or not folders:
        return None
    environment = {**os.environ, "NODE_PATH": os.pathsep.join(str(folder) for folder in folders)}
    done = subprocess.run(
        [node, "-e", _SCRIPT, str(path.resolve())],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode == 3:
        # What is not a GLB at all is refused by an exception, not by a report.
        return (f"not a GLB: {done.stderr.strip()}",), (), {}
    if done.returncode != 0:
        raise ValueError(f"the glTF validator failed: {done.stderr.strip().splitlines()[-1:]}")
    return _told(json.loads(done.stdout))


def _told(report: dict) -> Told:
    issues, found = report["issues"], report.get("info", {})

    def of(severity: int) -> tuple[str, ...]:
        return tuple(
            f"{issue['code']}: {issue['message']} ({issue.get('pointer', '')})"
            for issue in issues["messages"]
            if issue["severity"] == severity
        )

    figures = {
        "errors": float(issues["numErrors"]),
        "warnings": float(issues["numWarnings"]),
        "infos": float(issues["numInfos"]),
        "triangles": float(found.get("totalTriangleCount", 0)),
    }
    return of(0), of(1), figures
