"""three.js with its loader of GLBs, as trimesh ships it for its own viewer: one script that defines `THREE` and fetches nothing."""

from functools import cache

from trimesh import resources, util

BEFORE, AFTER = "<script>", "var camera,controls"
"""What stands around it in trimesh's page; behind it follows that page's own program."""


@cache
def three_script() -> str:
    """The script. Raises ValueError where trimesh's page is another than the one known here."""
    files = util.decompress(resources.get_bytes("templates/viewer.zip"), file_type="zip")
    page = files["viewer.html.template"].read().decode()
    script, found, _ = page.partition(BEFORE)[2].partition(AFTER)
    if not found or "</script" in script or "THREE.GLTFLoader=" not in script:
        raise ValueError("this version of trimesh does not hold three.js where it is looked for")
    return script
