"""A 3D file's check: GLB by the Khronos validator where npm has it, everything else by the engine."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreampolish.assets import validate
from dreampolish.assets.findings import FileFindings
from dreampolish.scene.untrusted.files import MESH_BYTES, read_regular

CHECKER = "Khronos glTF validator"
SECONDS = 120
_SCRIPT = """
const validator = require('gltf-validator');
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[1]));
validator.validateBytes(bytes, {maxIssues: 1000, writeTimestamp: false}).then(
  report => process.stdout.write(JSON.stringify(report)),
  error => { process.stderr.write(String(error)); process.exit(3); });
"""


def findings_of(path: Path, node_modules: Sequence[Path]) -> FileFindings:
    """Check a file by the ending of its name.

    node_modules: folders where npm's `gltf-validator` may lie; without it or node, GLBs are checked by trimesh.
    Raises ValueError for an ending that is not known and OSError for a file that cannot be read.
    """
    found = khronos_findings(path, node_modules) if path.suffix.lower() == ".glb" else None
    return validate.findings_of(path) if found is None else found


def khronos_findings(path: Path, node_modules: Sequence[Path]) -> FileFindings | None:
    """What the Khronos validator says of a GLB; None without node or the package `gltf-validator` in one of the folders.

    `npm install gltf-validator` makes it available. Raises ValueError where the validator itself fails.
    """
    node = shutil.which("node")
    folders = [folder for folder in node_modules if (folder / "gltf-validator").is_dir()]
    if node is None or not folders:
        return None
    read_regular(path, MESH_BYTES)  # raises what a reader would
    environment = {**os.environ, "NODE_PATH": os.pathsep.join(str(folder) for folder in folders)}
    command = [node, "-e", _SCRIPT, str(path.resolve())]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return FileFindings(CHECKER, (f"the validator did not end within {SECONDS} s",))
    if done.returncode == 3:
        # What is not a GLB at all is refused by an exception, not by a report.
        return FileFindings(CHECKER, (f"not a GLB: {done.stderr.strip()}",))
    if done.returncode != 0:
        raise ValueError(f"the glTF validator failed: {done.stderr.strip().splitlines()[-1:]}")
    return _findings_of_report(json.loads(done.stdout))


def _findings_of_report(report: dict[str, Any]) -> FileFindings:
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
    return FileFindings(CHECKER, of(0), of(1), figures)
