// The four views: what can be set in each, which pictures it has, and what its numbers say.

import { another, chooser, classes, layerTold, randomSeed, seedField, temperatures } from "/controls.js";
import { Figure, button, choice, field, group, make, nats, pointAt, radios, slider } from "/parts.js";

// Where a figure with two-dimensional axes was clicked.
const onPlane = (then) => (x, y, shown, event) => {
  const point = pointAt(x, y, shown);
  if (point) then(point, event);
};

const samples = {
  title: "Samples",
  controls(app) {
    const set = app.state.now;
    const { run } = app;
    const layers = run.layers.length;
    const keep = set.keep
      ? group(`Sample ${set.keep.sample} is kept`,
          slider({ label: "Top layers kept", min: 0, max: layers, step: 1, value: set.keep.layers, key: "kept",
            told: (k) => `${k} of ${layers}`, change: (k) => { set.keep.layers = k; app.changed(); } }),
          make("p", { className: "hint" }, "The layers below are drawn anew for each image; the kept sample stays what it was."),
          button("Let go", () => { set.keep = null; app.changed({ rebuild: true }); }, { "data-key": "let go" }))
      : group("Keep", make("p", { className: "hint" }, run.are_points || layers < 1
          ? "These samples have one layer." : "Click a sample to keep its top layers and draw the rest anew."));
    return [
      group("Draw", seedField(app),
        field({ label: `Number (up to ${run.most_images.toLocaleString("en")})`, min: 1, max: run.most_images, value: set.n, key: "n",
          change: (n) => { set.n = Math.round(n); if (set.keep && set.keep.sample >= set.n) { set.keep = null; app.changed({ rebuild: true }); } else app.changed(); } }),
        choice({ label: "Show", value: set.show, key: "show", options: [["mean", "the mean of p(x|z)"], ["mode", "the mode"], ["sample", "a sample"]],
          change: (show) => { set.show = show; app.changed(); } })),
      classes(app),
      temperatures(app),
      run.are_points ? null : keep,
    ];
  },
  figures: (app) => ({
    samples: new Figure({
      name: "samples", title: "Samples", wide: true, pickTold: "keep its top layers",
      pick: app.run.are_points ? null : (k) => {
        const set = app.state.now;
        const layers = set.keep?.layers || Math.ceil(app.run.layers.length / 2);
        set.keep = set.keep?.sample === k ? null : { sample: k, layers };
        app.changed({ rebuild: true });
      },
    }),
  }),
  chosen: (app) => ({ samples: app.state.now.keep?.sample }),
  again(app) { app.state.now.seed = randomSeed(); },
};

const reconstruction = {
  title: "Reconstruction",
  controls: (app) => [
    chooser(app, app.run.are_points ? "Point" : "Image", "image"),
    classes(app, app.state.now.image),
    group(app.run.are_points ? "Noise" : "Noise of q and of the layers drawn anew", seedField(app)),
    app.run.are_points ? null : temperatures(app, "Temperature of the layers drawn anew"),
  ],
  figures(app) {
    if (app.run.are_points) {
      const place = onPlane((point) => { app.state.now.image = { point }; app.changed({ rebuild: true }); });
      return { reconstruction: new Figure({ name: "reconstruction", title: "Click in the plane: x and its reconstructions", wide: true, place }) };
    }
    return {
      reconstruction: new Figure({ name: "reconstruction", title: "Image and reconstruction" }),
      heat: new Figure({ name: "heat", title: "KL over the image" }),
      progressive: new Figure({ name: "progressive", title: "Progressive: top layers of the image, the rest from the prior", wide: true }),
    };
  },
  chosen: () => ({}),
  numbers: (app, numbers) => [termsOf(app, numbers), barsOf(app, numbers), channelsOf(numbers, app.state.now.heat, (channel) =>
    app.go("latents", { label: app.state.now.label, base: app.state.now.image, moves: app.run.has_plane ? app.state.views.latents.moves : [{ layer: app.state.now.heat, channel, value: 2, at: null }] }))],
  again(app) { another(app, "image"); },
};

function termsOf(app, { elbo, nll, kl, bits_per_dim: bits, image }) {
  const sum = kl.reduce((a, b) => a + b, 0);
  const terms = [["ELBO", `${nats(elbo)} nats`], ["−log p(x|z)", `${nats(nll)} nats`], ["KL, all layers", `${nats(sum)} nats`]];
  if (bits !== undefined) terms.push(["bits/dim", bits === null ? "not finite" : bits.toFixed(4)]);
  return make("section", { className: "card" }, make("h2", {}, app.run.are_points ? "ELBO of this point" : "ELBO of this image"),
    make("p", { className: "hint" }, image),
    make("dl", { className: "terms" }, ...terms.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)])));
}

// A bar for each layer; the pressed one is shown over the image.
function barsOf(app, { kl }) {
  const set = app.state.now;
  const most = Math.max(...kl, 1e-9);
  const sum = kl.reduce((a, b) => a + b, 0);
  const bar = (label, value, i) => {
    const fill = make("span", { className: "fill" });
    fill.style.width = i === null ? "0" : `${Math.max(0, (100 * value) / most)}%`;
    return make("button", { type: "button", className: "kl", "aria-pressed": String(set.heat === i), "data-key": `kl ${i}`,
      onclick: () => { set.heat = i; app.changed(); } },
      make("span", { className: "name" }, label), make("span", { className: "track" }, fill),
      make("span", { className: "value" }, `${nats(value)} nats${i !== null && sum > 0 ? ` · ${Math.round((100 * value) / sum)} %` : ""}`));
  };
  const hint = app.run.are_points ? "Press one to see its channels." : "Press one to see where on the image it lies.";
  return make("section", { className: "card long", "aria-label": "KL of each layer" }, make("h2", {}, "KL of each layer"),
    make("p", { className: "hint" }, hint),
    make("div", { className: "kls" }, bar("all layers", sum, null), ...kl.map((value, i) => bar(layerTold(app.run, i), value, i))));
}

function channelsOf({ channels }, layer, press) {
  if (!channels) return null;
  const most = Math.max(...channels, 1e-9);
  const bars = channels.map((value, channel) => {
    const bar = make("button", { type: "button", title: `channel ${channel}: ${nats(value)} nats; move it`,
      "aria-label": `channel ${channel}, ${nats(value)} nats: move it`, onclick: () => press(channel) });
    bar.style.height = `${Math.max(3, (100 * value) / most)}%`;
    return bar;
  });
  return make("section", { className: "card", "aria-label": `Channels of layer ${layer}` },
    make("h2", {}, `KL of the ${channels.length} channels of layer ${layer}`),
    make("p", { className: "hint" }, `The most is ${nats(most)} nats. Press a channel to move it.`), make("div", { className: "channels" }, ...bars));
}

const mix = {
  title: "Mix",
  controls(app) {
    const set = app.state.now;
    const layers = app.run.layers.length;
    const exchange = button("Exchange A and B", () => { [set.a, set.b] = [set.b, set.a]; app.changed({ rebuild: true }); }, { "data-key": "exchange" });
    const byLayers = slider({ label: "Top layers from A", min: 0, max: layers, step: 1, value: set.layers, key: "layers",
      told: (k) => `${k} of ${layers}`, change: (k) => { set.layers = k; app.changed(); } });
    const way = slider({ label: "Way from A to B", min: 0, max: 1, step: 0.01, value: set.weight, key: "weight", change: (w) => { set.weight = w; app.changed(); } });
    const clicks = radios({ label: "What a click in the plane sets", value: app.clickSets ?? "a", change: (key) => { app.clickSets = key; },
      options: [["a", "a click sets A"], ["b", "a click sets B"]] });
    return [
      group("Mixture", app.run.are_points ? null : byLayers, way, app.run.are_points ? clicks : null, exchange),
      classes(app, set.a),
      chooser(app, "A", "a"),
      chooser(app, "B", "b"),
    ];
  },
  figures(app) {
    const set = (key, value) => { app.state.now[key] = value; app.changed({ rebuild: true }); };
    if (app.run.are_points) {
      const place = onPlane((point) => set(app.clickSets ?? "a", { point }));
      return { between: new Figure({ name: "between", title: "Click in the plane: the line from A to B in z, seen in x", wide: true, place }) };
    }
    return {
      mix: new Figure({ name: "mix", title: "A, the mixture, B" }),
      between: new Figure({ name: "between", title: "A, a point on the way, B" }),
      layers: new Figure({ name: "layers", title: "Top layers from A, the rest from B", wide: true, pickTold: "choose",
        pick: (k) => set("layers", app.numbers.counts[k]) }),
      line: new Figure({ name: "line", title: "From A to B", wide: true, pickTold: "choose",
        pick: (k) => set("weight", app.numbers.weights[k]) }),
    };
  },
  chosen: (app) => ({ layers: app.numbers.counts?.indexOf(app.state.now.layers), line: app.numbers.weights.indexOf(app.state.now.weight) }),
  numbers: (app, { a, b }) => [make("section", { className: "card" }, make("h2", {}, "What is mixed"), make("p", {}, `A: ${a}`), make("p", {}, `B: ${b}`))],
  again(app) { another(app, "b"); },
};

const latents = {
  title: "Latents",
  controls(app) {
    const set = app.state.now;
    const parts = [app.run.has_plane ? planeControls(app) : moveControls(app), chooser(app, "Begin with", "base"), classes(app, set.base)];
    if ("seed" in set.base) parts.push(temperatures(app, "Temperature of the beginning"));
    return parts;
  },
  figures(app) {
    const { run } = app;
    const figures = {};
    const title = "Before, after, and the difference";
    figures.latents = run.are_points
      ? new Figure({ name: "latents", title: "x, before and after" })
      : new Figure({ name: "latents", title: run.has_plane || run.layers.every((shape) => shape.length < 3) ? title : `${title}; click for a place`,
          wide: true, place: (x, y, shown) => placeMove(app, x, y, shown) });
    if (run.has_plane) {
      const place = onPlane(([z1, z2]) => {
        const bounded = (value) => Math.min(3, Math.max(-3, Math.round(value * 100) / 100));
        [z1, z2].forEach((value, k) => { app.state.now.moves[k].value = bounded(value); });
        app.changed({ rebuild: true });
      });
      figures.plane = new Figure({ name: "plane", title: "The plane of z: click in it", place });
    }
    if (!run.are_points) {
      figures.sweep = new Figure({ name: "sweep", title: "From −3 to 3", wide: true, pickTold: "choose", pick: (k) => {
        app.state.now.moves.at(-1).value = k - 3;
        app.changed({ rebuild: true });
      } });
    }
    return figures;
  },
  chosen: (app) => ({ sweep: Number.isInteger(app.state.now.moves.at(-1).value) ? app.state.now.moves.at(-1).value + 3 : -1 }),
  shown: (app, figures) => mark(app, figures.latents),
  numbers(app, { base, before, after, is_code: isCode, channels }) {
    const told = isCode ? (value) => `code ${value.toFixed(0)}` : (value) => value?.toFixed(3) ?? "not finite";
    const where = app.state.now.moves.at(-1).at || app.run.layers[app.state.now.moves.at(-1).layer].length < 3 ? "z there" : "z, mean over the map";
    return [make("section", { className: "card" }, make("h2", {}, "What is moved"), make("p", { className: "hint" }, base),
      make("dl", { className: "terms" }, make("dt", {}, `${where}, before`), make("dd", {}, told(before)), make("dt", {}, "after"), make("dd", {}, told(after)))),
      channelsOf({ channels }, app.state.now.moves.at(-1).layer, (channel) => {
        app.state.now.moves.at(-1).channel = channel;
        app.changed({ rebuild: true });
      })];
  },
  again(app) { another(app, "base"); },
};

function planeControls(app) {
  const { moves } = app.state.now;
  return group("z, in prior standard deviations", ...[0, 1].map((k) =>
    slider({ label: k ? "z₂" : "z₁", min: -3, max: 3, step: 0.01, value: moves[k].value, key: `z${k}`, change: (value) => { moves[k].value = value; app.changed(); } })));
}

function moveControls(app) {
  const { run } = app;
  const { moves } = app.state.now;
  const move = moves.at(-1);
  const shape = run.layers[move.layer];
  const parts = [
    choice({ label: "Layer", value: String(move.layer), key: "layer", options: run.layers.map((_, i) => [String(i), layerTold(run, i)]),
      change: (i) => { Object.assign(move, { layer: Number(i), channel: Math.min(move.channel, run.layers[i][0] - 1), at: null }); app.changed({ rebuild: true }); } }),
    shape[0] > 1 ? slider({ label: "Channel", min: 0, max: shape[0] - 1, step: 1, value: move.channel, key: "channel", change: (c) => { move.channel = c; app.changed(); } }) : null,
    slider({ label: "Value", min: -3, max: 3, step: 0.01, value: move.value, key: "value", told: () => "prior std", change: (v) => { move.value = v; app.changed(); } }),
  ];
  if (shape.length === 3 && shape[1] * shape[2] > 1) {
    if (move.at) {
      ["Row", "Column"].forEach((label, k) => parts.push(field({ label, min: 0, max: shape[k + 1] - 1, value: move.at[k], key: label,
        change: (value) => { move.at[k] = Math.round(value); app.changed(); } })));
      parts.push(button("Everywhere", () => { move.at = null; app.changed({ rebuild: true }); }, { "data-key": "everywhere" }));
    } else {
      parts.push(make("p", { className: "hint" }, `Everywhere on its ${shape[1]}×${shape[2]} map. Click the picture for one place.`));
      parts.push(button("At one place", () => { move.at = [shape[1] >> 1, shape[2] >> 1]; app.changed({ rebuild: true }); }, { "data-key": "one place" }));
    }
  }
  const others = moves.slice(0, -1).map((other, k) => make("p", { className: "row" },
    make("span", {}, `layer ${other.layer}, channel ${other.channel} at ${other.value}${other.at ? `, place ${other.at.join(", ")}` : ""}`),
    button("Undo", () => { moves.splice(k, 1); app.changed({ rebuild: true }); }, { "aria-label": `Undo the move of layer ${other.layer}, channel ${other.channel}` })));
  if (moves.length < 16) parts.push(button("Keep this and move another", () => { moves.push({ ...move, value: 0 }); app.changed({ rebuild: true }); }, { "data-key": "another" }));
  return group("Move", ...parts, ...others);
}

// From a click on a tile to the place of the layer's map that lies there.
function placeMove(app, x, y, { grid, width }) {
  const move = app.state.now.moves.at(-1);
  const shape = app.run.layers[move.layer];
  if (shape.length < 3 || shape[1] * shape[2] === 1) return;
  const [tileWidth, tileHeight] = grid.tile;
  const left = (x - grid.padding) % (tileWidth + grid.padding);
  const top = y - grid.padding;
  if (left < 0 || left >= tileWidth || top < 0 || top >= tileHeight || x > width) return;
  const [, height, across] = app.run.image;
  const pixel = [(top / tileHeight) * height, (left / tileWidth) * across];
  move.at = pixel.map((value, k) => {
    const margin = Math.floor((app.run.canvas[k] - [height, across][k]) / 2);
    return Math.min(shape[k + 1] - 1, Math.floor(((value + margin) * shape[k + 1]) / app.run.canvas[k]));
  });
  app.changed({ rebuild: true });
}

// A frame around the place, on the tiles before and after.
function mark(app, figure) {
  const move = app.state.now.moves.at(-1);
  figure.over.replaceChildren();
  if (!move.at || !figure.shown.grid) return;
  const { grid, width, height } = figure.shown;
  const shape = app.run.layers[move.layer];
  const [, imageHeight, imageWidth] = app.run.image;
  const edges = [[imageHeight, grid.tile[1], height], [imageWidth, grid.tile[0], width]].map(([side, tile, whole], k) => {
    const margin = Math.floor((app.run.canvas[k] - side) / 2);
    const cell = app.run.canvas[k] / shape[k + 1];
    const low = Math.max(0, move.at[k] * cell - margin);
    const high = Math.min(side, (move.at[k] + 1) * cell - margin);
    return { low: (low / side) * tile, size: (Math.max(0, high - low) / side) * tile, whole };
  });
  for (let tile = 0; tile < 3; tile++) {
    const frame = make("span", { className: "place" });
    const [rows, columns] = edges;
    frame.style.top = `${(100 * (grid.padding + rows.low)) / rows.whole}%`;
    frame.style.height = `${(100 * rows.size) / rows.whole}%`;
    frame.style.left = `${(100 * (grid.padding + tile * (grid.tile[0] + grid.padding) + columns.low)) / columns.whole}%`;
    frame.style.width = `${(100 * columns.size) / columns.whole}%`;
    figure.over.append(frame);
  }
}

export const VIEWS = { samples, reconstruction, mix, latents };
