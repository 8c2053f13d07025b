// What is set in each view, and how the address holds it: #view?key=value&...

export const PICTURE_KINDS = ["mean", "mode", "sample"];

const number = (text, low, high, otherwise) => {
  const value = Number(text);
  return text !== null && text !== "" && Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : otherwise;
};
const whole = (text, low, high, otherwise) => Math.round(number(text, low, high, otherwise));

// An image: test:12, drop:KEY, seed:5, point:1.5,-2
export function imageText(image) {
  if ("split" in image) return `${image.split}:${image.index}`;
  if ("upload" in image) return `drop:${image.upload}`;
  if ("seed" in image) return `seed:${image.seed}`;
  return `point:${image.point.join(",")}`;
}

function imageOf(text, otherwise) {
  const [kind, rest] = [(text ?? "").split(":")[0], (text ?? "").split(":").slice(1).join(":")];
  if (!kind || rest === "") return otherwise;
  if (kind === "drop" && /^[0-9a-f]{16}$/.test(rest)) return { upload: rest };
  if (kind === "seed") return { seed: whole(rest, 0, 2 ** 31 - 1, 0) };
  if (kind === "point") {
    const [x, y] = rest.split(",").map(Number);
    return Number.isFinite(x) && Number.isFinite(y) ? { point: [x, y] } : otherwise;
  }
  return { split: kind, index: whole(rest, 0, 2 ** 40, 0) };
}

// A temperature: 0.8, linear:1:0.5, or 1,0.8,0.6
export function temperatureText(temperature) {
  if (!Array.isArray(temperature)) return String(temperature);
  return temperature[0] === "linear" ? temperature.join(":") : temperature.join(",");
}

function temperatureOf(text, layers) {
  if (text === null) return 1;
  if (text.startsWith("linear:")) {
    const [, top, bottom] = text.split(":");
    return ["linear", number(top, 0, 10, 1), number(bottom, 0, 10, 1)];
  }
  if (!text.includes(",")) return number(text, 0, 10, 1);
  const each = text.split(",").map((part) => number(part, 0, 10, 1));
  return each.length === layers ? each : 1;
}

function placeOf(text) {
  const parts = (text ?? "").split(",").map(Number);
  return parts.length === 2 && parts.every((p) => Number.isInteger(p) && p >= 0) ? parts : null;
}

export class State {
  constructor(run) {
    this.run = run;
    this.view = "samples";
    this.views = {};
    for (const view of ["samples", "reconstruction", "mix", "latents"]) this.views[view] = this.read(view, new URLSearchParams());
  }

  get now() {
    return this.views[this.view];
  }

  // The first image of the dataset, or the one in its middle; without the dataset, samples.
  firstImage(isOther) {
    const [split, count] = Object.entries(this.run.splits)[0] ?? [];
    return split ? { split, index: isOther ? count >> 1 : 0 } : { seed: isOther ? 1 : 0 };
  }

  // The settings of a view, with what the address says, as far as it makes sense.
  read(view, said) {
    const most = this.run.classes.length - 1;
    const label = most < 0 || said.get("class") === null ? null : whole(said.get("class"), 0, most, 0);
    return { label, ...this.readOwn(view, said) };
  }

  readOwn(view, said) {
    const layers = this.run.layers.length;
    const temperature = temperatureOf(said.get("t"), layers);
    const seed = whole(said.get("seed"), 0, 2 ** 31 - 1, 0);
    if (view === "samples") {
      const most = this.run.most_images;
      const keep = placeOf(said.get("keep"));
      return {
        seed, temperature,
        n: whole(said.get("n"), 1, most, this.run.are_points ? 1000 : Math.min(64, most)),
        show: PICTURE_KINDS.includes(said.get("show")) ? said.get("show") : this.run.are_points ? "sample" : "mean",
        keep: keep && { sample: keep[0], layers: Math.min(keep[1], layers) },
      };
    }
    if (view === "reconstruction") {
      const heat = said.get("heat");
      return {
        seed, temperature,
        image: imageOf(said.get("image"), this.firstImage(false)),
        heat: heat === null ? null : whole(heat, 0, layers - 1, 0),
      };
    }
    if (view === "mix") {
      return {
        a: imageOf(said.get("a"), this.firstImage(false)),
        b: imageOf(said.get("b"), this.firstImage(true)),
        layers: whole(said.get("layers"), 0, layers, Math.ceil(layers / 2)),
        weight: number(said.get("weight"), 0, 1, 0.5),
      };
    }
    const moves = (said.get("moves") ?? "").split(";").filter(Boolean).map((text) => this.moveOf(text)).filter(Boolean);
    const both = this.run.has_plane && moves.length !== 2;
    const plain = both ? [0, 1].map((channel) => ({ layer: 0, channel, value: channel ? -1 : 1, at: null })) : null;
    return {
      temperature,
      base: imageOf(said.get("base"), { seed: 0 }),
      moves: plain ?? (moves.length ? moves : [{ layer: 0, channel: 0, value: 2, at: null }]),
    };
  }

  // layer.channel=value or layer.channel=value@row,column
  moveOf(text) {
    const found = /^(\d+)\.(\d+)=(-?[\d.]+)(?:@(\d+,\d+))?$/.exec(text);
    if (!found || !this.run.layers[Number(found[1])]) return null;
    return { layer: Number(found[1]), channel: Number(found[2]), value: number(found[3], -6, 6, 0), at: placeOf(found[4]) };
  }

  fromAddress() {
    const [view, said] = location.hash.slice(1).split("?");
    if (view in this.views) {
      this.view = view;
      this.views[view] = this.read(view, new URLSearchParams(said ?? ""));
    }
  }

  get address() {
    return this.addressOf(this.view);
  }

  addressOf(view) {
    const set = this.views[view];
    const said = [];
    const say = (key, value) => said.push(`${key}=${encodeURIComponent(value).replace(/%(3A|2C|3B|40|3D)/g, decodeURIComponent)}`);
    if (set.label !== null) say("class", set.label);
    for (const key of ["image", "a", "b", "base"]) if (set[key]) say(key, imageText(set[key]));
    if ("seed" in set) say("seed", set.seed);
    if ("n" in set) say("n", set.n);
    if (set.show) say("show", set.show);
    if ("temperature" in set) say("t", temperatureText(set.temperature));
    if (set.keep) say("keep", `${set.keep.sample},${set.keep.layers}`);
    for (const key of ["heat", "layers", "weight"]) if (set[key] !== undefined && set[key] !== null) say(key, set[key]);
    if (set.moves) say("moves", set.moves.map((m) => `${m.layer}.${m.channel}=${m.value}${m.at ? `@${m.at.join(",")}` : ""}`).join(";"));
    return `#${view}?${said.join("&")}`;
  }

  // What the server is asked for.
  get asked() {
    return this.now;
  }
}
