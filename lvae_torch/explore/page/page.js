// The page: what is set, in the address; one request at a time, the newest; and what the server answers.

import { make } from "/parts.js";
import { State } from "/state.js";
import { VIEWS } from "/views.js";

const of = (id) => document.getElementById(id);
const me = crypto.randomUUID();
const PICTURES_OF = { samples: null, reconstruction: "image", mix: "a", latents: "base" }; // where a dropped picture goes

class App {
  constructor(run) {
    this.run = run;
    this.state = new State(run);
    this.uploads = new Map();
    this.answers = {};
    this.isAsking = false;
    this.isOutdated = false;
    this.figures = {};
  }

  start() {
    const { run } = this;
    document.title = `${run.run} – lvae explore`;
    of("run").textContent = run.run;
    const [channels, height, width] = run.image;
    const what = run.are_points ? "points of the plane" : `${width}×${height} ${channels === 1 ? "grey" : channels === 3 ? "colour" : `${channels} channels`}`;
    const layers = `${run.layers.length} latent layer${run.layers.length > 1 ? "s" : ""}`;
    of("facts").textContent = [run.family, layers, `${run.parameters.toLocaleString("en")} parameters`, what, `step ${run.step.toLocaleString("en")}`,
      run.weights === "ema" ? "averaged weights" : "raw weights", run.prior && `prior ${run.prior.prior_run}`, run.device].filter(Boolean).join(" · ");
    of("remarks").replaceChildren(...run.remarks.map((remark) => make("p", { className: "remark" }, remark)));
    Object.entries(VIEWS).forEach(([name, { title }]) => of("views").append(make("a", { href: `#${name}`, id: `to-${name}` }, title)));
    window.addEventListener("hashchange", () => this.readAddress());
    document.addEventListener("keydown", (event) => this.pressed(event));
    of("controls").addEventListener("submit", (event) => event.preventDefault());
    of("python").addEventListener("click", () => this.showLines());
    of("link").addEventListener("click", () => this.copy(location.href, "The link is copied."));
    of("copy").addEventListener("click", () => this.copy(of("program").textContent, "The lines are copied."));
    of("close").addEventListener("click", () => of("lines").close());
    this.takeDrops();
    this.readAddress();
  }

  get view() {
    return VIEWS[this.state.view];
  }

  readAddress() {
    if (location.hash === this.state.address && this.built) return;
    this.state.fromAddress();
    this.build();
    this.changed();
  }

  // To another view, as if its link were pressed.
  go(view, settings) {
    Object.assign(this.state.views[view], settings);
    location.hash = this.state.addressOf(view);
  }

  build() {
    this.built = this.state.view;
    this.figures = this.view.figures(this);
    of("pictures").replaceChildren(...Object.values(this.figures).map((figure) => figure.element));
    of("numbers").replaceChildren();
    of("pictures").className = this.state.view;
    this.buildControls();
  }

  // Anew, with the focus where it was.
  buildControls() {
    const focused = document.activeElement?.dataset?.key;
    const opened = of("controls").scrollTop;
    of("controls").replaceChildren(...this.view.controls(this).filter(Boolean));
    of("controls").scrollTop = opened;
    if (focused) this.focus(focused);
  }

  focus(key) {
    const found = [...document.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key);
    found?.focus({ preventScroll: true });
  }

  changed({ rebuild = false } = {}) {
    history.replaceState(null, "", this.state.address);
    for (const name of Object.keys(VIEWS)) {
      of(`to-${name}`).href = this.state.addressOf(name);
      if (name === this.state.view) of(`to-${name}`).setAttribute("aria-current", "page");
      else of(`to-${name}`).removeAttribute("aria-current");
    }
    if (rebuild) this.buildControls();
    this.ask();
  }

  // One request at a time; what changes meanwhile is asked for after it, once.
  async ask() {
    this.isOutdated = true;
    if (this.isAsking) return;
    this.isAsking = true;
    of("stage").setAttribute("aria-busy", "true");
    while (this.isOutdated) {
      this.isOutdated = false;
      const { view } = this.state;
      const began = performance.now();
      const answer = await post(`/api/${view}`, JSON.stringify(this.state.asked), { "Content-Type": "application/json" });
      if (view === this.state.view) this.show(answer, performance.now() - began);
    }
    this.isAsking = false;
    of("stage").setAttribute("aria-busy", "false");
  }

  show(answer, took) {
    if (answer.status === 409) return;
    of("error").hidden = !answer.error;
    of("error").textContent = answer.error ?? "";
    of("python").disabled = Boolean(answer.error);
    if (answer.error) {
      of("status").textContent = "";
      return;
    }
    this.answers[this.state.view] = answer;
    const chosen = this.view.chosen(this);
    for (const shown of answer.pictures) this.figures[shown.name]?.show(shown, chosen[shown.name]);
    this.view.shown?.(this, this.figures);
    const focused = document.activeElement?.dataset?.key;
    of("numbers").replaceChildren(...(this.view.numbers?.(this, answer.numbers) ?? []).filter(Boolean));
    if (focused) this.focus(focused);
    const ofClass = answer.class === null ? "" : ` · class ${answer.class}`;
    of("status").textContent = `${answer.pictures[0].alt}${ofClass} · ${Math.round(took)} ms`;
  }

  // The numbers beside the pictures that are shown.
  get numbers() {
    return this.answers[this.state.view]?.numbers ?? {};
  }

  showLines() {
    of("program").textContent = this.answers[this.state.view]?.lines ?? "";
    of("lines").showModal();
  }

  async copy(text, told) {
    try {
      await navigator.clipboard.writeText(text);
      of("status").textContent = told;
    } catch {
      of("status").textContent = "The browser does not allow to copy; select the text instead.";
    }
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || of("lines").open) return;
    if (event.target.matches("input:not([type=range]):not([type=radio]), select, textarea")) return;
    const key = event.key.toLowerCase();
    const view = Object.keys(VIEWS)[Number(key) - 1];
    if (view) location.hash = this.state.addressOf(view);
    else if (key === "r") { this.view.again(this); this.changed({ rebuild: true }); }
    else if (key === "s") Object.values(this.figures)[0].download();
    else if (key === "p") this.showLines();
    else return;
    event.preventDefault();
  }

  takeDrops() {
    document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
    document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      const file = event.dataTransfer?.files?.[0];
      if (file) this.upload(file, event.target.closest("[data-drop]")?.dataset.drop);
    });
  }

  // A picture becomes an image of the view; from Samples, which has none, it leads to its reconstruction.
  async upload(file, key) {
    of("status").textContent = `${file.name} is being read…`;
    const answer = await post("/api/pictures", file, { "Content-Type": "application/octet-stream", "X-Name": encodeURIComponent(file.name) });
    of("error").hidden = !answer.error;
    of("error").textContent = answer.error ?? "";
    if (answer.error) {
      of("status").textContent = "";
      return;
    }
    this.uploads.set(answer.upload, { name: answer.name });
    const where = key ?? PICTURES_OF[this.state.view];
    if (!where) {
      this.go("reconstruction", { image: { upload: answer.upload } });
      return;
    }
    this.state.now[where] = { upload: answer.upload };
    this.changed({ rebuild: true });
  }
}

// The server's answer, with ``status``; or with ``error``, what to tell.
async function post(address, body, headers = {}) {
  try {
    const response = await fetch(address, { method: body === undefined ? "GET" : "POST", body, headers: { "X-Page": me, ...headers } });
    const answer = await response.json().catch(() => ({ error: `The server answered with status ${response.status}.` }));
    return { status: response.status, ...answer };
  } catch {
    return { status: 0, error: "The server does not answer. Is lvae explore still running?" };
  }
}

const run = await post("/api/run");
if (run.error) {
  of("error").hidden = false;
  of("error").textContent = run.error;
} else {
  new App(run).start();
}
