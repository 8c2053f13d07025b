// The parts that pages are made of. Everything is made with DOM calls: no text becomes markup.

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && !["list", "form"].includes(key)) element[key] = value;
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

let ids = 0;
export const newId = () => `e${++ids}`;

export function group(title, ...children) {
  return make("fieldset", {}, make("legend", {}, title), ...children);
}

// A slider with its number, which can also be typed.
export function slider({ label, min, max, step, value, change, told, key }) {
  const id = newId();
  const number = make("input", { type: "number", min, max, step, value, "aria-label": `${label}, as a number` });
  const range = make("input", { type: "range", id, min, max, step, value, "data-key": key ?? label });
  const extra = make("span", { className: "told" }, told ? told(value) : "");
  const set = (text, from) => {
    const next = Number(text);
    if (text === "" || !Number.isFinite(next)) return;
    const bounded = Math.min(max, Math.max(min, next));
    if (from !== range) range.value = bounded;
    if (from !== number) number.value = bounded;
    if (told) extra.textContent = told(bounded);
    change(bounded);
  };
  range.addEventListener("input", () => set(range.value, range));
  number.addEventListener("input", () => set(number.value, number));
  number.addEventListener("change", () => { number.value = range.value; });
  const part = make("div", { className: "slider" }, make("label", { htmlFor: id }, label), extra, range, number);
  part.show = (shown) => {
    range.value = shown;
    if (document.activeElement !== number) number.value = shown;
    if (told) extra.textContent = told(shown);
  };
  return part;
}

export function field({ label, min, max, step = 1, value, change, key }) {
  const id = newId();
  const input = make("input", { type: "number", id, min, max, step, value, "data-key": key ?? label });
  input.addEventListener("input", () => {
    const next = Number(input.value);
    if (input.value !== "" && Number.isFinite(next)) change(Math.min(max, Math.max(min, next)));
  });
  return make("div", { className: "field" }, make("label", { htmlFor: id }, label), input);
}

export function choice({ label, options, value, change, key }) {
  const id = newId();
  const select = make("select", { id, "data-key": key ?? label });
  for (const [name, told] of options) select.append(make("option", { value: name, selected: name === value }, told));
  select.addEventListener("change", () => change(select.value));
  return make("div", { className: "field" }, make("label", { htmlFor: id }, label), select);
}

// One of several, side by side.
export function radios({ label, options, value, change }) {
  const name = newId();
  const parts = options.map(([key, told]) => {
    const input = make("input", { type: "radio", name, value: key, checked: key === value, onchange: () => change(key) });
    return make("label", {}, input, make("span", {}, told));
  });
  return make("div", { className: "radios", role: "radiogroup", "aria-label": label }, ...parts);
}

export const button = (text, onclick, attributes = {}) => make("button", { type: "button", onclick, ...attributes }, text);

// A picture with what can be clicked on it, its labels and its "Save".
export class Figure {
  constructor({ name, title, pick, pickTold, place, wide }) {
    Object.assign(this, { name, pick, pickTold, place });
    this.image = make("img", { draggable: false });
    this.over = make("div", { className: "over" });
    this.labels = make("div", { className: "labels", "aria-hidden": "true" });
    this.save = button("Save PNG", () => this.download(), { "data-save": name });
    this.body = make("div", { className: "picture" }, this.image, this.over);
    const scroller = make("div", { className: "scroller" }, make("div", { className: "inner" }, this.body, this.labels));
    this.element = make("figure", { className: wide ? "wide" : "", "data-name": name },
      make("figcaption", {}, make("span", {}, title), this.save), scroller);
    this.over.addEventListener("keydown", (event) => this.walk(event));
    if (place) this.body.addEventListener("click", (event) => this.placed(event));
    this.body.classList.toggle("placed", Boolean(place));
  }

  show(shown, chosen) {
    this.shown = shown;
    this.element.dataset.shown = "";
    this.image.src = `data:image/png;base64,${shown.png}`;
    this.image.alt = shown.alt;
    this.image.classList.toggle("smooth", Boolean(shown.plane));
    this.image.width = shown.width;
    this.image.height = shown.height;
    const columns = shown.grid?.columns ?? 1;
    this.element.style.setProperty("--columns", columns);
    this.element.style.setProperty("--natural", `${shown.width}px`);
    this.showLabels(shown, columns);
    if (shown.grid && this.pick) this.showTiles(shown, chosen);
  }

  showLabels({ labels, grid }, columns) {
    const wanted = grid && labels.length && grid.n <= columns ? labels : [];
    const told = wanted.join("|");
    if (told === this.told) return;
    this.told = told;
    this.labels.replaceChildren(...wanted.map((label) => make("span", {}, label)));
  }

  // One button a tile; arrow keys walk among them.
  showTiles({ width, height, grid, labels }, chosen) {
    const { n, columns, tile, padding } = grid;
    const percent = (part, whole) => `${(100 * part) / whole}%`;
    while (this.over.children.length > n) this.over.lastChild.remove();
    while (this.over.children.length < n) {
      const k = this.over.children.length;
      this.over.append(make("button", { type: "button", onclick: () => this.pick(k), tabIndex: -1 }));
    }
    [...this.over.children].forEach((tileButton, k) => {
      const [column, row] = [k % columns, Math.floor(k / columns)];
      tileButton.style.left = percent(padding + column * (tile[0] + padding), width);
      tileButton.style.top = percent(padding + row * (tile[1] + padding), height);
      tileButton.style.width = percent(tile[0], width);
      tileButton.style.height = percent(tile[1], height);
      tileButton.setAttribute("aria-label", `${labels[k] ?? k}: ${this.pickTold}`);
      tileButton.title = `${labels[k] ?? k}: ${this.pickTold}`;
      tileButton.setAttribute("aria-pressed", k === chosen);
    });
    const stop = this.over.children[Math.min(chosen ?? this.stop ?? 0, n - 1)];
    for (const other of this.over.children) other.tabIndex = other === stop ? 0 : -1;
  }

  walk(event) {
    const columns = this.shown.grid.columns;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const all = [...this.over.children];
    const next = all[all.indexOf(document.activeElement) + steps[event.key]];
    if (!(event.key in steps) || !next) return;
    event.preventDefault();
    this.stop = all.indexOf(next);
    for (const other of all) other.tabIndex = other === next ? 0 : -1;
    next.focus();
  }

  // Where a click is, in pixels of the picture.
  placed(event) {
    const box = this.image.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.shown.width;
    const y = ((event.clientY - box.top) / box.height) * this.shown.height;
    this.place(x, y, this.shown, event);
  }

  // The saved bytes are the server's, with the settings in their metadata.
  download() {
    const bytes = Uint8Array.from(atob(this.shown.png), (c) => c.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    make("a", { href: address, download: `${this.name}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }
}

// A point of the plane under a click, or null outside of the axes.
export function pointAt(x, y, { plane }) {
  const [left, bottom, right, top] = plane.bounds;
  const [x0, y0, x1, y1] = plane.box;
  if (x < x0 || x > x1 || y < y0 || y > y1) return null;
  const round = (value) => Math.round(value * 1000) / 1000;
  return [round(left + ((x - x0) / (x1 - x0)) * (right - left)), round(top - ((y - y0) / (y1 - y0)) * (top - bottom))];
}

export const nats = (value) => (value === null || value === undefined ? "not finite" : value.toFixed(2));
