// Controls that several views share: temperatures, the choice of an image and of its class, seeds.

import { button, choice, field, group, make, radios, slider } from "/parts.js";

const MOST_SEED = 2 ** 31 - 1;
export const randomSeed = () => Math.floor(Math.random() * 100000);

export const layerTold = (run, i) => {
  const where = i === 0 ? " (top)" : i === run.layers.length - 1 ? " (bottom)" : "";
  return `layer ${i}${run.layers.length > 1 ? where : ""}, ${run.layers[i].join("×")}`;
};

// One temperature for all layers, from the top's to the bottom's, or one for each.
export function temperatures(app, title = "Temperature") {
  const set = app.state.now;
  const n = app.run.layers.length;
  const mode = !Array.isArray(set.temperature) ? "all" : set.temperature[0] === "linear" ? "linear" : "each";
  const each = (t) => {
    if (!Array.isArray(t)) return Array(n).fill(t);
    if (t[0] !== "linear") return t;
    return Array.from({ length: n }, (_, i) => Math.round(100 * (t[1] + ((t[2] - t[1]) * i) / Math.max(1, n - 1))) / 100);
  };
  const change = (key) => {
    const now = each(set.temperature);
    set.temperature = key === "all" ? now[0] : key === "linear" ? ["linear", now[0], now[n - 1]] : now;
    app.changed({ rebuild: true });
  };
  const one = (label, get, put) =>
    slider({ label, min: 0, max: 2, step: 0.01, value: get(), key: `t ${label}`, change: (value) => { put(value); app.changed(); } });
  const parts = [];
  if (n > 1) parts.push(radios({ label: "Form of the temperatures", value: mode, change, options: [["all", "all layers"], ["linear", "linear"], ["each", "each layer"]] }));
  if (mode === "all") parts.push(one("all layers", () => set.temperature, (v) => { set.temperature = v; }));
  if (mode === "linear") {
    for (const [k, label] of [[1, "top layer"], [2, "bottom layer"]]) parts.push(one(label, () => set.temperature[k], (v) => { set.temperature[k] = v; }));
  }
  if (mode === "each") {
    const list = set.temperature.map((_, i) => one(layerTold(app.run, i), () => set.temperature[i], (v) => { set.temperature[i] = v; }));
    parts.push(make("div", { className: "many" }, ...list));
  }
  return group(title, ...parts);
}

// An image of the dataset, a sample, a dropped picture, or a point.
export function chooser(app, title, key) {
  const { run, state } = app;
  const set = state.now;
  const image = set[key];
  const kind = "split" in image ? `split ${image.split}` : "seed" in image ? "seed" : "point" in image ? "point" : `drop ${image.upload}`;
  const options = Object.entries(run.splits).map(([split, count]) => [`split ${split}`, `dataset: ${split} (${count.toLocaleString("en")})`]);
  options.push(["seed", "a sample of the model"]);
  if (run.are_points) options.push(["point", "a point of the plane"]);
  const dropped = new Map(app.uploads);
  if ("upload" in image && !dropped.has(image.upload)) dropped.set(image.upload, { name: "a dropped picture" });
  for (const [id, { name }] of dropped) options.push([`drop ${id}`, `dropped: ${name}`]);
  const put = (next, rebuild = true) => { set[key] = next; app.changed({ rebuild }); };
  const choose = (name) => {
    const [what, rest] = [name.split(" ")[0], name.split(" ").slice(1).join(" ")];
    if (what === "split") put({ split: rest, index: 0 });
    else if (what === "drop") put({ upload: rest });
    else put(what === "seed" ? { seed: 0 } : { point: [0, 0] });
  };
  const parts = [choice({ label: "Source", options, value: kind, change: choose, key: `${key} source` })];
  if ("index" in image || "seed" in image) {
    const name = "index" in image ? "index" : "seed";
    const most = name === "index" ? (run.splits[image.split] ?? 1) - 1 : MOST_SEED;
    const to = (value) => put({ ...set[key], [name]: Math.min(most, Math.max(0, Math.round(value))) });
    parts.push(field({ label: name === "index" ? "Number" : "Seed", min: 0, max: most, value: image[name], key: `${key} number`,
      change: (value) => { set[key] = { ...set[key], [name]: Math.round(value) }; app.changed(); } }));
    parts.push(make("div", { className: "row" },
      button("Previous", () => to(set[key][name] - 1), { "data-key": `${key} previous` }),
      button("Next", () => to(set[key][name] + 1), { "data-key": `${key} next` }),
      button("Random", () => to(Math.floor(Math.random() * (name === "index" ? most + 1 : 100000))), { "data-key": `${key} random` })));
  }
  if ("point" in image) {
    [0, 1].forEach((k) => parts.push(field({ label: k ? "x₂" : "x₁", min: -1e6, max: 1e6, step: "any", value: image.point[k], key: `${key} point ${k}`,
      change: (value) => { const point = [...set[key].point]; point[k] = value; set[key] = { point }; app.changed(); } })));
  }
  if (run.takes_pictures) {
    const input = make("input", { type: "file", accept: "image/*", className: "file", "aria-label": `${title}: choose a picture file` });
    input.addEventListener("change", () => input.files[0] && app.upload(input.files[0], key));
    const box = make("label", { className: "drop" }, "Drop a picture here, or choose a file", input);
    box.dataset.drop = key;
    parts.push(box);
  }
  return group(title, ...parts);
}

// Of a class-conditional run: the class; that of ``image`` itself where it is of the dataset.
export function classes(app, image) {
  const { run } = app;
  const set = app.state.now;
  if (!run.classes.length) return null;
  const hasOwn = image && "split" in image;
  const options = run.classes.map((name, k) => [String(k), name]);
  if (hasOwn) options.unshift(["own", "that of the image"]);
  return group("Class", choice({ label: "Class", options, value: String(set.label ?? (hasOwn ? "own" : 0)), key: "class",
    change: (label) => { set.label = label === "own" ? null : Number(label); app.changed(); } }));
}

export const seedField = (app, label = "Seed") => {
  const set = app.state.now;
  return make("div", { className: "row" },
    field({ label, min: 0, max: MOST_SEED, value: set.seed, key: "seed", change: (value) => { set.seed = Math.round(value); app.changed(); } }),
    button("New", () => { set.seed = randomSeed(); app.changed({ rebuild: true }); }, { "data-key": "new seed", "aria-label": "New seed" }));
};

// Another image of the same kind.
export function another(app, key) {
  const set = app.state.now;
  const image = set[key];
  if ("split" in image) set[key] = { ...image, index: Math.floor(Math.random() * (app.run.splits[image.split] ?? 1)) };
  else if ("seed" in image) set[key] = { seed: randomSeed() };
  else if ("seed" in set) set.seed = randomSeed();
}
