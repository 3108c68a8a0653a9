"""The Khronos glTF validator, where node and its npm package are to be had."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dreampolish.mesh.validate_glb import Told

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
