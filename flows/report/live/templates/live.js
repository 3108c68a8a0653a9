/** Milliseconds between two looks at a run that goes on, and at one that does not. */
const LOOK = 1500, LOOK_AT_REST = 6000;

const one = (selector, inside = document) => inside.querySelector(selector);
const run = one("#run").textContent;
const place = (path) => new URL(`/runs/${run}/${path}`, location.origin).href;

/** The model's tile: exchanges the model and keeps the camera. */
class MeshTile {
  constructor(tile, orbit) { this.tile = tile; this.orbit = orbit; this.shown = ""; this.viewer = null; }

  async show(stage, version) {
    const wanted = `${stage} ${version}`;
    if (this.shown === wanted) return;
    this.shown = wanted;
    const answer = await fetch(place(`mesh/${stage}?v=${version}`));
    if (!answer.ok) return;
    const bytes = new Uint8Array(await answer.arrayBuffer()), old = one("canvas", this.tile), fresh = old.cloneNode();
    const before = this.viewer, watchers = this.orbit.watchers.slice();
    try {
      this.viewer = await Viewer.open(fresh, bytes, this.orbit);
    } catch (error) {
      one(".message", this.tile).textContent = `The mesh cannot be shown here: ${error.message}.`;
      return;
    }
    // A renderer that nobody frees keeps its place among the few that a browser allows.
    if (before) {
      this.orbit.watchers = this.orbit.watchers.filter((watcher) => watcher !== this.own);
      before.renderer.dispose();
      before.renderer.forceContextLoss();
    }
    this.own = this.orbit.watchers.find((watcher) => !watchers.includes(watcher));
    old.replaceWith(fresh);
    one(".message", this.tile).hidden = true;
    this.mode();
  }

  mode() { if (this.viewer) this.viewer.show(one("input[name=mode]:checked").value); }
}

/** Show the side of the strip of square views that the camera is on. */
function aim(orbit) {
  const picture = one("#views");
  if (!picture.naturalWidth) return;
  const views = Math.max(1, Math.round(picture.naturalWidth / picture.naturalHeight));
  const view = Math.round(orbit.azimuth / 360 * views) % views;
  picture.style.transform = `translateX(${-100 * view / views}%)`;
}

/** Give a picture its newest version; it keeps the one before until the new one is there. */
function renew(picture, address) {
  if (picture.dataset.shown === address) return;
  picture.dataset.shown = address;
  const next = new Image();
  next.onload = () => { if (picture.dataset.shown === address) { picture.src = address; picture.hidden = false; } };
  next.src = address;
}

function showViews(stages) {
  const known = stages.filter((stage) => stage.shown.views);
  const latest = known[known.length - 1];
  if (!latest) return;
  const address = place(`views/${latest.name}?v=${latest.shown.views}`);
  renew(one("#views"), address);
  renew(one("#sheet"), address);
  one("#turn-views .message").hidden = true;
  one("#views-of").textContent = `${latest.title}: the views from all around, from the side that the camera is on.`;
}

function showPictures(stages) {
  const box = one("#pictures"), running = stages.find((stage) => stage.state === "runs");
  const wanted = running ? Object.entries(running.shown).filter(([name]) => name !== "views") : [];
  all("#pictures figure").forEach((figure) => {
    if (!wanted.some(([name]) => figure.dataset.picture === `${running.name} ${name}`)) figure.remove();
  });
  for (const [name, version] of wanted) {
    const key = `${running.name} ${name}`;
    let figure = all("#pictures figure").find((each) => each.dataset.picture === key);
    if (!figure) {
      figure = document.createElement("figure");
      figure.dataset.picture = key;
      figure.append(document.createElement("img"), document.createElement("figcaption"));
      one("figcaption", figure).textContent = `${running.title}: ${name}`;
      one("img", figure).alt = `${running.title}: ${name}`;
      box.append(figure);
    }
    renew(one("img", figure), place(`pictures/${running.name}/${name}?v=${version}`));
  }
}

function showStage(stage) {
  const row = one(`[data-row="${stage.name}"]`), state = one(".state", row);
  state.className = `state ${stage.state}`;
  state.textContent = { runs: "goes on", waits: "waits" }[stage.state] || stage.state;
  one("progress", row).value = stage.share;
  one(".words", row).textContent = stage.words;
}

async function showCurves(stage) {
  const box = one(`[data-curves="${stage.name}"]`);
  if (!stage.curves || box.dataset.shown === String(stage.curves)) return;
  box.dataset.shown = String(stage.curves);
  const answer = await fetch(place(`charts/${stage.name}`));
  if (!answer.ok) return;
  const html = (await answer.text()).trim();
  one(".charts", box).innerHTML = html;
  box.hidden = !html;
}

function showEnd(view) {
  const badge = one("#state"), go_on = one("#go-on");
  badge.className = `state ${view.state}`;
  badge.textContent = view.words;
  one("#end").hidden = !view.report;
  go_on.hidden = !view.go_on_with;
  one("code", go_on).textContent = view.go_on_with;
}

async function look(mesh) {
  const answer = await fetch(place("state"));
  if (!answer.ok) throw new Error(String(answer.status));
  const view = await answer.json();
  showEnd(view);
  view.stages.forEach(showStage);
  showViews(view.stages);
  showPictures(view.stages);
  await Promise.all(view.stages.map(showCurves));
  if (view.mesh) {
    const [name, version] = view.mesh, stage = view.stages.find((each) => each.name === name);
    await mesh.show(name, version);
    one("#mesh-of").textContent = name === "export" ? "The finished asset." : `The mesh so far, of ${stage.title}.`;
  }
  document.documentElement.dataset.state = view.state;
  return view.state === "runs" ? LOOK : LOOK_AT_REST;
}

function start() {
  const orbit = new Orbit(), turn = turning(one("#turn"), orbit), mesh = new MeshTile(one("#model"), orbit);
  orbit.watchers.push(() => aim(orbit));
  one("#views").addEventListener("load", () => aim(orbit));
  all("[data-steer]").forEach((element) => steer(element, orbit, turn.stop));
  all("input[name=mode]").forEach((input) => input.addEventListener("change", () => mesh.mode()));
  const again = async () => {
    let pause = LOOK_AT_REST;
    try {
      // Nobody looks at a hidden page, so the run need not draw for it.
      if (!document.hidden) pause = await look(mesh);
      one("#lost").hidden = true;
    } catch { one("#lost").hidden = false; }
    setTimeout(again, pause);
  };
  again();
}

start();
