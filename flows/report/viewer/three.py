"""three.js with its loader of GLBs, as trimesh ships it for its own viewer: one script that defines `THREE` and fetches nothing."""

import io
import zipfile
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

BEFORE, AFTER = "<script>", "var camera,controls"
"""What stands around it in trimesh's page; behind it follows that page's own program."""


@cache
def three_script() -> str:
    """The script. Raises ValueError where trimesh's page is another than the one known here."""
    # Without importing trimesh, which takes as long as torch.
    packed = Path(str(distribution("trimesh").locate_file("trimesh/resources/templates/viewer.zip"))).read_bytes()
    with zipfile.ZipFile(io.BytesIO(packed)) as files:
        page = files.read("viewer.html.template").decode()
    script, found, _ = page.partition(BEFORE)[2].partition(AFTER)
    if not found or "</script" in script or "THREE.GLTFLoader=" not in script:
        raise ValueError("this version of trimesh does not hold three.js where it is looked for")
    return script
