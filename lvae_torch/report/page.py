"""The page of a report: one run, or several side by side, as HTML that needs nothing else."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from html import escape
from pathlib import Path

from lvae_torch.report.charts import Line, layer_colour, layers_chart, line_chart
from lvae_torch.report.facts import Facts
from lvae_torch.report.likelihoods import likelihood_rows
from lvae_torch.report.pictures import Picture
from lvae_torch.report.tables import costs, number, results_of_modes, settings_that_differ, table
from lvae_torch.reporting.belonging import conditions
from lvae_torch.runs.version import VERSION

STYLE = Path(__file__).with_name("style.css")
NOTES = {
    "Samples": "Drawn from the prior. A temperature below 1 makes the priors' standard deviations smaller.",
    "Progressive reconstruction": "From left to right, more layers are taken from the image's posterior.",
    "Layer inspection": "In a row, all layers above are shared, this one is drawn anew for each image, and those below "
    "are at their mean: what changes in a row is what the layer decides. Layer 0 is the top.",
}


@dataclass(frozen=True)
class Reported:
    """A run, and its pictures if there are any; or why there are none."""

    facts: Facts
    pictures: Sequence[Picture] = ()
    why_not: str = ""


def page(runs: Sequence[Reported]) -> str:
    """The whole page.

    Args:
        runs: the run reported of, and those that it is compared with.
    """
    facts = [run.facts for run in runs]
    upper = (part(runs) for part in (_header, _what, _likelihoods, _curves, _layers, _pictures))
    lower = (part(facts) for part in (results_of_modes, costs, settings_that_differ))
    body = "\n".join("".join(part) for part in (*upper, *lower))
    title = escape(" · ".join(run.facts.name for run in runs))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        "'unsafe-inline'\">"
        f"<title>{title}</title><style>\n{STYLE.read_text('utf-8')}</style></head>\n<body><main>\n{body}\n"
        f"<footer>Written by lvae_torch {escape(VERSION)} on {now}. Likelihoods are in nats per image, lower is "
        "better; layers count from the top.</footer></main></body></html>\n"
    )


def _header(runs: Sequence[Reported]) -> Iterator[str]:
    first = runs[0].facts
    if len(runs) > 1:
        names = escape(" · ".join(run.facts.name for run in runs))
        yield f"<h1>{names}</h1><p class=soft>{len(runs)} runs compared</p>"
        datasets = {(run.facts.settings.data.dataset, run.facts.settings.data.val_split) for run in runs}
        contents = {run.facts.about["data"] for run in runs if "data" in run.facts.about}
        if len(datasets) > 1 or len(contents) > 1:
            told = "; ".join(f"{r.facts.name}: {_data(r.facts)}, {r.facts.settings.data.val_split}" for r in runs)
            warning = f"These runs do not have the same data; their likelihoods do not compare. {told}"
            yield f"<div class=warning>{escape(warning)}</div>"
        return
    state = str(first.status.get("state", "not begun"))
    kind = state if state in ("finished", "failed") else "other"
    yield f'<h1>{escape(first.name)} <span class="state {kind}">{escape(state)}</span></h1>'
    taken, steps = first.steps
    of = f" of {steps:,}" if steps else ""
    yield f"<p class=soft>{escape(first.settings.model.family)} · {escape(_data(first))} · step {taken:,}{of}</p>"
    if message := str(first.status.get("message") or ""):
        yield f"<div class=warning>{escape(message)}</div>"
    yield _tiles(first)


def _tiles(facts: Facts) -> str:
    evaluation, shown = facts.evaluation, list[tuple[str, str]]()
    if evaluation:
        shown.append((number(evaluation["nelbo"]), f"-ELBO, nats, {facts.settings.data.val_split}"))
        if "bpd" in evaluation:
            shown.append((number(evaluation["bpd"], 4), "bits per dimension"))
        shown.append((number(evaluation.get("kl")), "of it KL, nats"))
    bound = facts.results.get("likelihood", {})
    if bound and facts.is_current("likelihood"):
        told = ", ".join([f"-log p(x), {bound.get('iw_samples')} samples", *conditions(bound)])
        shown.append((number(bound.get("nll_bound")), told))
    last = facts.history.last("speed/")
    if "images_per_second" in last:
        shown.append((number(last["images_per_second"], 0), "images per second"))
    tiles = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in shown
    )
    return f'<div class="tiles">{tiles}</div>' if tiles else "<p>Nothing has been measured yet.</p>"


def _what(runs: Sequence[Reported]) -> Iterator[str]:
    yield "<h2>What it is</h2>"
    keys = list(dict.fromkeys(key for run in runs for key in _described(run.facts)))
    rows = [[key, *(_described(run.facts).get(key, "–") for run in runs)] for key in keys]
    yield table(["", *(run.facts.name for run in runs)] if len(runs) > 1 else [], rows)


def _described(facts: Facts) -> dict[str, str]:
    s, taken = facts.settings, facts.steps[0]
    training = f"{taken:,} steps of {s.train.batch_size} images, {s.optimizer.name}, rate {s.optimizer.learning_rate:g}"
    described = {"model": s.model.family, **facts.about, "data": _data(facts), "training": training}
    described |= {"averaged weights": f"decay {s.train.ema_decay:g}" if s.train.ema_decay else "none"}
    described |= {"seed": str(s.run.seed)}
    times = [record["time"] for record in facts.history.records if "time" in record]
    if times:
        begun, ended = (datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M") for t in (min(times), max(times)))
        described["reports from, to"] = f"{begun}, {ended} UTC"
    if s.run.expect:
        described["to expect"] = s.run.expect
    return described


def _data(facts: Facts) -> str:
    data = facts.settings.data
    binarized = "" if data.binarize == "none" else f", binarize = {data.binarize}"
    return f"{facts.about.get('data', data.dataset)}{binarized}"


def _likelihoods(runs: Sequence[Reported]) -> Iterator[str]:
    rows = [row for run in runs for row in likelihood_rows(run.facts, with_name=len(runs) > 1)]
    yield "<h2>Likelihood</h2>"
    head = ["", "nats per image ± standard error", "published, or expected by the cfg", "bits/dim", "measured on"]
    yield table(head, rows) or "<p>Nothing has been evaluated yet.</p>"


def _curves(runs: Sequence[Reported]) -> Iterator[str]:
    of = partial(_lines, runs)
    drawn = [
        line_chart("-ELBO", of(("train/nelbo", "training"), ("val/nelbo", "validation")), "nats per image"),
        line_chart("-log p(x|z)", of(("train/nll", "training"), ("val/nll", "validation")), "nats per image"),
        line_chart("KL", of(("train/kl", "training"), ("val/kl", "validation")), "nats per image"),
        line_chart("Gradient norm", of(("train/grad_norm", "")), ""),
        line_chart("Learning rate", of(("train/learning_rate", "")), ""),
        line_chart("Speed", of(("speed/images_per_second", "")), "images per second"),
    ]
    if any(drawn):
        yield f'<h2>Curves</h2><div class="grid">{"".join(drawn)}</div>'


def _lines(runs: Sequence[Reported], *keys: tuple[str, str]) -> list[Line]:
    """The curves of several keys: a colour for each key of one run; of several runs a colour each, training dashed."""
    lines = []
    for r, run in enumerate(runs):
        for k, (key, label) in enumerate(keys):
            told = " ".join(part for part in (run.facts.name if len(runs) > 1 else "", label) if part)
            colour, is_dashed = (r, label == "training") if len(runs) > 1 else (k, False)
            lines.append(Line.of(run.facts.history, key, told, colour, is_dashed))
    return lines


def _layers(runs: Sequence[Reported]) -> Iterator[str]:
    drawn = list[str]()
    for run in runs:
        keys = run.facts.layers("train/kl") or run.facts.layers("val/kl")
        name = f", {run.facts.name}" if len(runs) > 1 else ""
        lines = Line.of_layers(run.facts.history, {key: f"layer {int(key.rpartition('/')[2])}" for key in keys})
        drawn.append(layers_chart(f"KL of each layer over time{name}", lines, "nats per image"))
        drawn.append(_bars(f"KL of each layer at the end{name}", run.facts))
    if any(drawn):
        yield f'<h2>Layers</h2><div class="grid">{"".join(drawn)}</div>'


def _bars(title: str, facts: Facts) -> str:
    evaluation = facts.evaluation
    keys = sorted((key for key in evaluation if key.startswith("kl/")), key=lambda key: int(key.partition("/")[2]))
    kl = [float(value) for key in keys if (value := evaluation[key]) is not None]
    if not kl or len(kl) != len(keys):
        return ""
    most, total = max(*kl, 1e-9), sum(kl) or 1.0
    bars = "".join(
        f'<span>layer {i}</span><i style="width:{100 * max(0.0, value) / most:.1f}%;'
        f'background:{layer_colour(i, len(kl))}"></i><span>{value:z.2f} ({value / total:.0%})</span>'
        for i, value in enumerate(kl)
    )
    caption = f"<figcaption>{escape(title)}<small>nats per image</small></figcaption>"
    return f'<figure>{caption}<div class="bars">{bars}</div></figure>'


def _pictures(runs: Sequence[Reported]) -> Iterator[str]:
    groups = list(dict.fromkeys(picture.group for run in runs for picture in run.pictures))
    for group in groups:
        note = f"<small>{escape(NOTES[group])}</small>" if group in NOTES else ""
        yield f"<h2>{escape(group)}{note}</h2>"
        for run in runs:
            if len(runs) > 1:
                yield f"<h3>{escape(run.facts.name)}</h3>"
            found = [_picture(run, picture) for picture in run.pictures if picture.group == group]
            yield f'<div class="grid{" small" if len(found) > 2 else ""}">{"".join(found)}</div>'
    for run in runs:
        if run.why_not:
            yield f"<h2>Pictures of {escape(run.facts.name)}</h2><p>{escape(run.why_not)}</p>"


def _picture(run: Reported, picture: Picture) -> str:
    told = escape(f"{picture.group} of {run.facts.name}: {picture.caption}")
    data = base64.b64encode(picture.png).decode()
    return (
        f'<figure class="picture"><figcaption>{escape(picture.caption)}</figcaption>'
        f'<img alt="{told}" src="data:image/png;base64,{data}"></figure>'
    )
