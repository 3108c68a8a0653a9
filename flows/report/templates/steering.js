/** Degrees a second of the turning model. */
const TURN_SPEED = 24;

const all = (selector) => Array.from(document.querySelectorAll(selector));

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
