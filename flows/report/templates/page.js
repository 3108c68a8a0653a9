/** Bytes of the base64 text of an element. */
function bytesOf(element) {
  const text = atob(element.textContent.trim()), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return bytes;
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
