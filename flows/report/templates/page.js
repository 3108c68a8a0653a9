/** Degrees a second of the turning model. */
const TURN_SPEED = 24;

const all = (selector) => Array.from(document.querySelectorAll(selector));

/** Bytes of the base64 text of an element. */
function bytesOf(element) {
  const text = atob(element.textContent.trim()), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return bytes;
}

/** Pointers, wheel and keys of an element turn the shared camera. moved: called at the first touch. */
function steer(element, orbit, moved) {
  const pointers = new Map();
  let spread = 0;
  const apart = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  element.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    element.setPointerCapture(event.pointerId);
    if (pointers.size === 2) spread = apart();
    moved();
  });
  element.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const dx = event.clientX - last.x, dy = event.clientY - last.y;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (pointers.size === 1) {
      const degrees = 180 / Math.max(element.clientWidth, 1);
      orbit.move({ azimuth: orbit.azimuth - dx * degrees, elevation: orbit.elevation + dy * degrees });
    } else if (pointers.size === 2) {
      const now = apart();
      if (spread > 0) orbit.move({ zoom: orbit.zoom * now / spread });
      spread = now;
    }
  });
  for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, (event) => pointers.delete(event.pointerId));
  element.addEventListener("wheel", (event) => {
    // The page must still scroll: only a pinch, or a wheel over the focused model, zooms.
    if (!event.ctrlKey && document.activeElement !== element) return;
    event.preventDefault();
    moved();
    orbit.move({ zoom: orbit.zoom * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.001)) });
  }, { passive: false });
  element.addEventListener("keydown", (event) => {
    const change = {
      ArrowLeft: { azimuth: orbit.azimuth - 15 }, ArrowRight: { azimuth: orbit.azimuth + 15 },
      ArrowUp: { elevation: orbit.elevation + 10 }, ArrowDown: { elevation: orbit.elevation - 10 },
      "+": { zoom: orbit.zoom * 1.2 }, "-": { zoom: orbit.zoom / 1.2 }, 0: { azimuth: 35, elevation: 15, zoom: 1 },
    }[event.key];
    if (!change) return;
    event.preventDefault();
    moved();
    orbit.move(change);
  });
}

/** The button that lets the camera go around; it is on at first unless the reader prefers stillness. */
function turning(button, orbit) {
  let last = 0;
  const on = () => button.getAttribute("aria-pressed") === "true";
  const step = (now) => {
    if (!on()) { last = 0; return; }
    if (last) orbit.move({ azimuth: orbit.azimuth + TURN_SPEED * Math.min(now - last, 100) / 1000 });
    last = now;
    requestAnimationFrame(step);
  };
  const set = (value) => {
    if (value === on()) return;
    button.setAttribute("aria-pressed", String(value));
    if (value) requestAnimationFrame(step);
  };
  button.addEventListener("click", () => set(!on()));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) set(true);
  return { stop: () => set(false) };
}

/** The stages' slider with its labels: shows one stage's pictures, from the side that the camera is on. */
function stages(slider, orbit) {
  const labels = all("[data-stage-label]"), names = labels.map((label) => label.dataset.stageLabel);
  const shown = () => names[Number(slider.value)];
  const aim = () => all(".strip.on img").forEach((picture) => {
    const views = Number(picture.dataset.views), view = Math.round(orbit.azimuth / 360 * views) % views;
    picture.style.transform = `translateX(${-100 * view / views}%)`;
    picture.parentElement.dataset.view = String(view);
  });
  const show = () => {
    all("[data-stage]").forEach((part) => part.classList.toggle("on", part.dataset.stage === shown()));
    labels.forEach((label) => label.setAttribute("aria-pressed", String(label.dataset.stageLabel === shown())));
    slider.setAttribute("aria-valuetext", labels[Number(slider.value)].textContent);
    aim();
  };
  labels.forEach((label, k) => label.addEventListener("click", () => { slider.value = String(k); show(); }));
  slider.addEventListener("input", show);
  orbit.watchers.push(aim);
  show();
}

/** A link that saves the model; left out inside a frame, where saving is forbidden. */
function savable(link, bytes) {
  if (window.top !== window.self) return;
  link.href = URL.createObjectURL(new Blob([bytes], { type: "model/gltf-binary" }));
  link.hidden = false;
}

async function openModel(canvas, orbit) {
  const holder = document.getElementById(canvas.dataset.model);
  if (!holder) return null;
  try {
    const bytes = bytesOf(holder), viewer = await Viewer.open(canvas, bytes, orbit);
    holder.remove();
    all(`[data-save="${canvas.dataset.model}"]`).forEach((link) => savable(link, bytes));
    return viewer;
  } catch (error) {
    const message = canvas.parentElement.querySelector(".message");
    message.textContent = `The model cannot be shown here: ${error.message}.`;
    message.hidden = false;
    return null;
  }
}

async function start() {
  const orbit = new Orbit(), slider = document.querySelector("#stage");
  const button = document.querySelector("#turn"), turn = button ? turning(button, orbit) : { stop() {} };
  if (slider) stages(slider, orbit);
  all("[data-steer]").forEach((element) => steer(element, orbit, turn.stop));
  const viewers = [];
  for (const canvas of all("canvas[data-model]")) {
    const viewer = await openModel(canvas, orbit);
    if (viewer) viewers.push(viewer);
  }
  const show = () => {
    const chosen = document.querySelector("input[name=mode]:checked");
    if (chosen) viewers.forEach((viewer) => viewer.show(chosen.value));
  };
  all("input[name=mode]").forEach((input) => input.addEventListener("change", show));
  show();
  document.documentElement.dataset.models = String(viewers.length);
}

start();
