"""What checks 3D files from outside of Python: npm packages, node and a browser."""

import hashlib
import shutil
from pathlib import Path

from dreampolish.renderers.three_page import browser_path
from stages.fingerprint import PROJECT


def module_folders() -> list[Path]:
    """Where npm packages for checks may lie: the folder the command runs in, and the project."""
    return [Path.cwd() / "node_modules", PROJECT / "node_modules"]


def tool_versions() -> dict[str, str]:
    """What tells one state of those tools from another: npm's own list of installed versions, the programs' files and their dates."""
    found = {}
    for place, folder in enumerate(module_folders()):
        packages = folder / ".package-lock.json"
        found[f"packages {place}"] = hashlib.sha256(packages.read_bytes()).hexdigest() if packages.is_file() else ""
    for name, program in (("node", shutil.which("node")), ("browser", browser_path())):
        found[name] = f"{Path(program).resolve()} {Path(program).stat().st_mtime_ns}" if program else ""
    return found
