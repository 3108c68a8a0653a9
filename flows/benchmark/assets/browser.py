"""The page in which three.js, in a headless browser, draws a GLB: an independent reader and renderer, to check ours and our files.

Everything is inside the page, so nothing else is fetched. A server on the loopback address, open for one page, hands it out and takes
the pictures back as a data URI.
"""

import base64
import hashlib
import io
import json
import queue
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreampolish.assets.asset import GLTF_FROM_WORLD
from dreampolish.scene.cameras import Cameras
from flows.report.viewer.three import three_script
from stages.runtime.files import PROJECT

SECONDS = 180
SUPERSAMPLE = 4
_HEADLESS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--no-first-run",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PAGE = """<!doctype html><meta charset="utf-8"><body>
<script>%(three)s</script>
<script type="module">
const given = %(given)s;
const send = result => fetch('/result', {method: 'POST', body: JSON.stringify(result)});
const complaints = [];
for (const kind of ['warn', 'error']) console[kind] = (...words) => complaints.push(words.join(' '));
try {
  const bytes = Uint8Array.from(atob(given.glb), letter => letter.charCodeAt(0)).buffer;
  const gltf = await new THREE.GLTFLoader().parseAsync(bytes, '');
  gltf.scene.traverse(part => {
    if (!part.isMesh) return;
    const old = part.material, side = THREE.DoubleSide;
    part.material = given.shows === 'colors'
      ? new THREE.MeshBasicMaterial({map: old.map, color: old.color, side})
      : new THREE.MeshNormalMaterial({normalMap: old.normalMap, normalScale: old.normalScale, side});
  });
  const scene = new THREE.Scene();
  scene.add(gltf.scene);
  const renderer = new THREE.WebGLRenderer({antialias: false, preserveDrawingBuffer: true});
  renderer.outputEncoding = THREE.sRGBEncoding;
  renderer.setPixelRatio(1);
  renderer.setSize(given.size * given.cameras.length, given.size);
  renderer.setScissorTest(true);
  renderer.setClearColor(0xffffff, 1);
  given.cameras.forEach((entry, number) => {
    const camera = new THREE.PerspectiveCamera(entry.fov, 1, entry.near, entry.far);
    camera.matrixAutoUpdate = false;
    camera.matrix.fromArray(entry.matrix);
    camera.matrixWorldNeedsUpdate = true;
    renderer.setViewport(number * given.size, 0, given.size, given.size);
    renderer.setScissor(number * given.size, 0, given.size, given.size);
    renderer.render(scene, camera);
  });
  await send({picture: renderer.domElement.toDataURL('image/png'), complaints});
} catch (error) {
  await send({failed: String(error), complaints});
}
</script>"""


class BrowserError(RuntimeError):
    """The browser or the page failed; the message is one line."""


def browser_path() -> str | None:
    """A Chromium on this machine."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def render_in_browser(
    glb: Path, cameras: Cameras, metres_per_unit: float, shows: Literal["colors", "normals"]
) -> tuple[Float[Tensor, "b h w 3"], list[str]]:
    """Pictures of a GLB by three.js, and what it complained of.

    colors: unlit base colours on white, sRGB. normals: (n + 1) / 2 in camera axes, normal map applied, white where nothing is seen.
    metres_per_unit: of the file, since the cameras are in scene units. Raises BrowserError.
    """
    browser = browser_path()
    if browser is None:
        raise BrowserError("needs Chromium")
    given = {
        "glb": base64.b64encode(glb.read_bytes()).decode(),
        "shows": shows,
        "size": cameras.size * SUPERSAMPLE,
        "cameras": [_camera(cameras, number, metres_per_unit) for number in range(len(cameras))],
    }
    page = _PAGE % {"three": three_script(), "given": json.dumps(given)}
    result = _result_of_page(browser, page)
    if "failed" in result:
        raise BrowserError(f"three.js could not draw {glb.name}: {result['failed']}")
    return _pictures(result["picture"], cameras.size), result["complaints"]


def _camera(cameras: Cameras, number: int, metres_per_unit: float) -> dict[str, object]:
    """A camera in the file's axes and metres; three.js wants matrices column by column."""
    pose = cameras.world_from_camera[number].double().cpu()
    turned = torch.eye(4, dtype=torch.float64)
    turned[:3, :3] = pose[GLTF_FROM_WORLD, :3]
    turned[:3, 3] = pose[GLTF_FROM_WORLD, 3] * metres_per_unit
    distance = float(turned[:3, 3].norm())
    return {
        "matrix": turned.T.reshape(-1).tolist(),
        "fov": float(cameras.fov_deg[number]),
        "near": distance / 100,
        "far": distance * 4,
    }


def _result_of_page(browser: str, page: str) -> dict:
    """Open the page in a browser of its own and wait for what it posts."""
    posted: queue.Queue[bytes] = queue.Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(page.encode(), posted))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [browser, *_HEADLESS, f"--user-data-dir={profile}", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return dict(json.loads(_awaited(posted, process)))
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
            server.server_close()


def _awaited(posted: "queue.Queue[bytes]", process: subprocess.Popen) -> bytes:
    """The page's answer; BrowserError if the browser ends or takes too long before."""
    for _ in range(SECONDS):
        try:
            return posted.get(timeout=1)
        except queue.Empty:
            if process.poll() is not None:
                raise BrowserError(f"the browser ended with code {process.returncode}") from None
    raise BrowserError(f"the browser took more than {SECONDS} s")


def _handler(page: bytes, posted: "queue.Queue[bytes]") -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Gives the page, takes one answer."""

        def do_GET(self) -> None:
            found = self.path == "/"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page if found else b"")

        def do_POST(self) -> None:
            posted.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: the terminal is the user's."""

    return Handler


def _pictures(uri: str, size: int) -> Tensor:
    """The strip of views, pooled to their size."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])), formats=["PNG"]) as picture:
        strip = torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)
    views = strip.reshape(size, SUPERSAMPLE, -1, size, SUPERSAMPLE, 3).mean((1, 4))
    return views.permute(1, 0, 2, 3).contiguous()


def module_folders() -> list[Path]:
    """Where npm packages for checks may lie: the folder the command runs in, and the project."""
    return [Path.cwd() / "node_modules", PROJECT / "node_modules"]


def tool_versions() -> dict[str, str]:
    """Changes whenever those tools do: npm's own list of installed versions, the programs' files and their dates."""
    found = {}
    for place, folder in enumerate(module_folders()):
        packages = folder / ".package-lock.json"
        found[f"packages {place}"] = hashlib.sha256(packages.read_bytes()).hexdigest() if packages.is_file() else ""
    for name, program in (("node", shutil.which("node")), ("browser", browser_path())):
        found[name] = f"{Path(program).resolve()} {Path(program).stat().st_mtime_ns}" if program else ""
    return found
