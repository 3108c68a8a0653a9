"""The report in a real browser, headless Chromium on software WebGL: the model is there, turns, and the page is silent."""

import base64
import colorsys
import io
import json
import math
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from dreampolish.assets.asset import plain_asset
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.assets.writing.glb import glb_bytes
from flows.report.facts import RunFacts, StageFacts
from flows.report.page import compare_page, run_page
from flows.report.settings import Command
from flows.report.strips import strip_of_views
from schemas.config.run import Config
from schemas.runs import RunRecord

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--no-first-run", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE_S = 240
"""Software WebGL on a busy machine."""
PROMPT = "a <script>throw 1</script> 'chair'"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


class Browser:
    """One tab, driven over the DevTools protocol. `noise`: what the console said and which addresses were asked for."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.noise: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[still])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result."""
        answer = self._answer(method, parameters)
        assert "error" not in answer, answer
        return answer["result"]

    def _answer(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=PATIENCE_S))
            if message.get("id") == self._number:
                return message
            self._listen(message)

    def whole_view(self) -> np.ndarray:
        """All that is seen, (H, W, 3) int; nothing (0, 0, 3) while a page is being exchanged for another."""
        answer = self._answer("Page.captureScreenshot", {"format": "png"})
        if "error" in answer:
            return np.zeros((0, 0, 3), int)
        with Image.open(io.BytesIO(base64.b64decode(answer["result"]["data"]))) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    def _listen(self, message: dict[str, Any]) -> None:
        if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.noise.append(json.dumps(message["params"]))
        elif message.get("method") == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            if not address.startswith(("data:", "blob:", "file:")):
                self.noise.append(address)

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def visit(self, path: Path, width: int, height: int) -> None:
        """Open a page and wait until its models are shown."""
        self.noise.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("document.documentElement?.dataset.models !== undefined")

    def wait_for(self, expression: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"{expression} did not come true; {self.noise}"
            time.sleep(0.1)

    def pixels(self, selector: str) -> np.ndarray:
        """What is seen of an element, (H, W, 3) uint8, after two more frames."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        script = f"JSON.stringify(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        box = json.loads(self.evaluate(script))
        offset = json.loads(self.evaluate("JSON.stringify([scrollX, scrollY])"))
        clip = {
            "x": box["x"] + offset[0],
            "y": box["y"] + offset[1],
            "width": box["width"],
            "height": box["height"],
            "scale": 1,
        }
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as picture:
            return np.asarray(picture.convert("RGB"))

    def middle(self, selector: str) -> tuple[int, ...]:
        """The colour in the middle of an element."""
        seen = self.pixels(selector)
        return tuple(int(value) for value in seen[seen.shape[0] // 2, seen.shape[1] // 2])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A tab of a browser of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            tab = _first_tab(Path(profile) / "DevToolsActivePort")
            with connect(tab, max_size=None, open_timeout=PATIENCE_S) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _first_tab(port_file: Path) -> str:
    until = time.monotonic() + PATIENCE_S
    while True:
        lines = port_file.read_text().splitlines() if port_file.exists() else []
        if len(lines) == 2:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=PATIENCE_S) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < until, "Chromium did not start"
        time.sleep(0.1)


def four_walls(bump: tuple[int, int, int]) -> bytes:
    """Walls of a cube: red in front (+Z), green at azimuth 90 (+X), blue behind, yellow at azimuth 270.

    bump: the only colour of the tangent-space normal map.
    """
    colors = torch.tensor([[[220, 30, 30], [30, 200, 30], [30, 30, 220], [220, 210, 30]]]) / 255
    angles = torch.arange(4) * math.pi / 2
    outward = torch.stack([angles.cos(), angles.sin(), torch.zeros(4)], -1)
    rightward = torch.stack([-angles.sin(), angles.cos(), torch.zeros(4)], -1)
    across, up = torch.tensor([-1.0, 1.0, 1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0, 1.0])
    corners = outward[:, None] + across[:, None] * rightward[:, None] + up[:, None] * torch.tensor([0.0, 0.0, 1.0])
    # Wall k shows the middle of the picture's square k.
    uv = torch.stack([torch.arange(4)[:, None] / 4 + (0.5 + 0.2 * across) / 4, (0.5 - 0.2 * up).expand(4, 4)], -1)
    faces = torch.cat([torch.tensor([[0, 1, 2], [0, 2, 3]]) + 4 * wall for wall in range(4)])
    mesh = TexturedMesh(
        vertices=corners.flatten(0, 1),
        normals=outward.repeat_interleave(4, 0),
        uv=uv.flatten(0, 1),
        faces=faces,
        textures=(colors.repeat_interleave(16, 0).repeat_interleave(16, 1),),
        face_texture=torch.zeros(len(faces), dtype=torch.int64),
    )
    normal_map = (torch.tensor(bump) / 255).expand(4, 4, 3)
    return glb_bytes(replace(plain_asset(mesh, "walls", {}), normal_map=normal_map), None)


def facts(folder: Path, run: str, bump: tuple[int, int, int]) -> RunFacts:
    """A run with a model and two stages of eight views, whose greys tell stage and view: nerf 0, 10, ..., texture 100, 110, ..."""
    stages = []
    for name, title, base in (("nerf", "NeRF", 0), ("texture", "Textured", 100)):
        paths = [folder / f"{name}-{index}.png" for index in range(8)]
        for index, path in enumerate(paths):
            Image.new("RGB", (32, 32), (base + 10 * index,) * 3).save(path)
        curves = {"psnr": [(step, step / 2) for step in range(0, 50, 5)]}
        figures = {"psnr": 20.0, "alignment": 0.5}
        strip = strip_of_views(paths, 64)
        stages.append(
            StageFacts(name, title, "computed", 1.0, 1.0, 2**30, figures, ("step cap 50",), "ab" * 32, {}, strip, curves)  # type: ignore[arg-type]
        )
    record = RunRecord(run=run, prompt=PROMPT, config=Config(), created="2026-01-01T00:00:00+00:00")
    making = Command("Make it again", "dreampolish run x")
    return RunFacts(
        record, tuple(stages), glb=four_walls(bump), candidates=None, pictures=(), changes=(), making=making, varying=()
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run.html, compare.html and framed.html, which shows run.html as the tracker does."""
    folder = tmp_path_factory.mktemp("pages")
    first, second = facts(folder, "aaaa0000", (128, 128, 255)), facts(folder, "bbbb0000", (128, 204, 230))
    page = run_page(first)
    (folder / "run.html").write_text(page)
    (folder / "compare.html").write_text(compare_page([first, second]))
    frame = '<iframe id="frame" sandbox="allow-scripts" style="width:900px;height:700px;border:0"></iframe>'
    content = f'Uint8Array.from(atob("{base64.b64encode(page.encode()).decode()}"), (c) => c.charCodeAt(0))'
    script = f'frame.src = URL.createObjectURL(new Blob([{content}], {{type: "text/html"}}));'
    (folder / "framed.html").write_text(f"{frame}<script>{script}</script>")
    return folder


def stand(browser: Browser, azimuth: int) -> None:
    """Turn the camera by keys: 0 puts it back to azimuth 35, elevation 15; then to elevation 5 and the azimuth, a multiple of 15 and 5."""
    press = "document.querySelector('canvas').dispatchEvent(new KeyboardEvent('keydown', {key: %s, bubbles: true}))"
    browser.evaluate(press % json.dumps("0"))
    browser.evaluate(press % json.dumps("ArrowDown"))
    steps = (azimuth - 35) // 15
    for _ in range(abs(steps)):
        browser.evaluate(press % json.dumps("ArrowRight" if steps > 0 else "ArrowLeft"))


def hue(color: tuple[int, ...]) -> int:
    """Degrees on the colour circle."""
    return round(360 * colorsys.rgb_to_hsv(*(value / 255 for value in color))[0])


@pytest.mark.parametrize(("width", "height"), [(1200, 900), (390, 844)])
def test_the_model_is_seen_from_the_side_that_the_camera_is_on(browser: Browser, pages: Path, width: int, height: int) -> None:
    browser.visit(pages / "run.html", width, height)
    assert browser.evaluate("document.documentElement.dataset.models") == "1"
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelector('h1').textContent") == PROMPT
    for azimuth, wanted in ((5, 0), (95, 120), (185, 240), (275, 57)):
        stand(browser, azimuth)
        assert abs((hue(browser.middle("canvas")) - wanted + 180) % 360 - 180) <= 6, azimuth
    corner = browser.pixels("canvas")[6, 6].astype(int)
    assert corner.min() > 180, "the model must not fill the tile's corner"
    assert browser.noise == []


def test_dragging_turns_the_model_and_its_stages(browser: Browser, pages: Path) -> None:
    browser.visit(pages / "run.html", 1200, 900)
    box = json.loads(browser.evaluate("JSON.stringify(document.querySelector('canvas').getBoundingClientRect())"))
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = browser.pixels("canvas")
    for kind, dx in (("mousePressed", 0), ("mouseMoved", -box["width"] / 4), ("mouseReleased", -box["width"] / 4)):
        browser.call(
            "Input.dispatchMouseEvent", type=kind, x=middle[0] + dx, y=middle[1], button="left", buttons=1, clickCount=1
        )
    assert np.abs(browser.pixels("canvas").astype(int) - before).mean() > 3
    # A quarter of the width is 45 degrees: from azimuth 35 to 80, which lies nearest to the third of eight views.
    assert browser.evaluate("document.querySelector('.strip.on').dataset.view") == "2"
    assert abs(browser.middle(".paper")[0] - 120) <= 4
    assert browser.noise == []


def test_the_slider_goes_through_the_stages(browser: Browser, pages: Path) -> None:
    browser.visit(pages / "run.html", 1200, 900)
    assert abs(browser.middle(".paper")[0] - 110) <= 4
    browser.evaluate(
        "(stage => { stage.value = '0'; stage.dispatchEvent(new Event('input')); })(document.querySelector('#stage'))"
    )
    assert abs(browser.middle(".paper")[0] - 10) <= 4
    assert browser.evaluate("document.querySelector('[data-stage-label=nerf]').getAttribute('aria-pressed')") == "true"
    browser.evaluate("document.querySelector('[data-stage-label=texture]').click()")
    assert abs(browser.middle(".paper")[0] - 110) <= 4
    assert browser.noise == []


def test_cameras_are_locked_and_normal_maps_bend_the_normals_upward(browser: Browser, pages: Path) -> None:
    browser.visit(pages / "compare.html", 1200, 900)
    assert browser.evaluate("document.documentElement.dataset.models") == "2"
    browser.evaluate("document.querySelector('input[value=normals]').click()")
    stand(browser, 5)
    flat, bent = (browser.middle(f'canvas[data-model="model-{number}"]') for number in range(2))
    # Camera at azimuth 5, elevation 5, wall normal +Z; the second model's map says (0, 0.6, 0.8) in the tangent frame.
    a = e = np.radians(5)
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0, -np.sin(a)])
    axes = np.stack([right, np.cross(back, right), back])
    for seen, normal in ((flat, [0, 0, 1]), (bent, [0, 0.6, 0.8])):
        np.testing.assert_allclose(seen, (axes @ normal + 1) / 2 * 255, atol=4)
    browser.evaluate("document.querySelector('input[value=wireframe]').click()")
    seen = browser.pixels("canvas").reshape(-1, 3).astype(int)
    assert (seen.max(1) < 110).sum() > 300, "lines"
    browser.evaluate("document.querySelector('input[value=clay]').click()")
    assert np.ptp(browser.middle("canvas")) < 25, "clay has no colour"
    assert browser.noise == []


def test_the_page_works_in_the_trackers_sandbox(browser: Browser, pages: Path) -> None:
    browser.noise.clear()
    browser.call("Emulation.setDeviceMetricsOverride", width=900, height=700, deviceScaleFactor=1, mobile=False)
    browser.call("Page.navigate", url=(pages / "framed.html").as_uri())
    until = time.monotonic() + PATIENCE_S
    while True:
        seen = browser.whole_view()
        # The front's red and the right side's green, both seen from azimuth 35.
        red = (seen[..., 0] > 120) & (seen[..., 1] < 60) & (seen[..., 2] < 60)
        green = (seen[..., 1] > 90) & (seen[..., 0] < 60) & (seen[..., 2] < 60)
        if red.sum() > 2000 and green.sum() > 1000:
            break
        assert time.monotonic() < until, f"no model in the frame; {browser.noise}"
        time.sleep(0.5)
    assert browser.noise == []
