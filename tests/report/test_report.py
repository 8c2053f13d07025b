"""The report of a run: what stands in it is what was measured, and it never gets in the way."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import small
import torch

from lvae_torch.data.labelled import Labelled
from lvae_torch.distributed.processes import Processes
from lvae_torch.distributed.seeding import seed_everything
from lvae_torch.elbo.bounds import elbo_terms
from lvae_torch.elbo.evaluation import evaluate
from lvae_torch.hparams import Settings, load
from lvae_torch.models.sources import posterior_sample
from lvae_torch.report import writing
from lvae_torch.report.__main__ import command
from lvae_torch.report.charts import Line, layers_chart
from lvae_torch.report.facts import Facts
from lvae_torch.report.tables import settings_that_differ
from lvae_torch.reporting.history import History
from lvae_torch.train import train

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects texts, tags and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A run whose training wrote its report."""
    folder = tmp_path_factory.mktemp("reported")
    small.write_dump(folder / "dumps")
    settings = small.settings(folder, run__report=True, run__expect="-ELBO <b>40</b> nats as published")
    train(settings)
    yield settings


def report_of(settings: Settings) -> Path:
    return Path(settings.run.runs) / settings.run.name / "report.html"


def last_evaluation(settings: Settings) -> dict[str, float]:
    lines = (report_of(settings).parent / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if "val/nelbo" in line][-1]


def test_training_leaves_a_report_with_its_numbers(trained: Settings) -> None:
    text = report_of(trained).read_text()
    page, last = Page(text), last_evaluation(trained)
    assert f"{last['val/nelbo']:.2f} ± {last['val/nelbo_error']:.2f}" in page.text
    assert f"{last['val/bpd']:.4f}" in page.text and "finished" in page.text
    assert "-ELBO <b>40</b> nats as published" in page.text, "what the cfg expects stands beside it, escaped"
    for heading in (
        *("Samples", "Reconstructions", "Progressive reconstruction", "Layer inspection", "Curves", "Likelihood"),
        *("Layers", "Speed and memory", "Settings that differ from the defaults"),
    ):
        assert heading in page.text, heading
    assert page.tags.count("img") == 3 + 1 + 1 + 2, "three temperatures, pairs, progressive, two layers"
    assert "optimizer.learning_rate" in page.text and "small, content" in page.text


def test_the_report_needs_nothing_else(trained: Settings) -> None:
    text = report_of(trained).read_text()
    page = Page(text)
    assert not {"script", "iframe", "link", "object", "form"} & set(page.tags)
    assert page.addresses and all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "http" not in re.sub(r"http-equiv", "", text) and "url(#" in text and "@import" not in text


def test_the_command_writes_the_same_numbers_later(trained: Settings, tmp_path: Path) -> None:
    folder = report_of(trained).parent
    command([str(folder), "--out", str(tmp_path / "new" / "again.html"), f"--set=data.dumps={trained.data.dumps!r}"])
    page = Page((tmp_path / "new" / "again.html").read_text())
    assert f"{last_evaluation(trained)['val/nelbo']:.2f}" in page.text and page.tags.count("img") == 7


def test_reports_compare_runs_and_say_where_they_do_not_compare(trained: Settings, tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps", "other", n_levels=2, n_train=40)
    other = small.settings(tmp_path, run__name="other", data__dataset="other", optimizer__learning_rate=2e-3)
    train(other)
    out = tmp_path / "both.html"
    command([str(report_of(trained).parent), "--compare", str(report_of(other).parent), "--out", str(out)])
    page = Page(out.read_text())
    assert "do not compare" in page.text and "small: -ELBO" in page.text and "other: -ELBO" in page.text
    assert "0.001" in page.text and "0.002" in page.text
    assert f"{last_evaluation(other)['val/nelbo']:.2f}" in page.text


def test_settings_of_two_families_are_those_that_each_run_had() -> None:
    cfgs = {name: load(ROOT / f"egs/{name}.cfg") for name in ("spatial_lvae/cifar10_15", "vdvae/vdvae_cifar10")}
    runs = [Facts(name, settings, History(()), {}, {}, {}) for name, settings in cfgs.items()]
    lines = "".join(settings_that_differ(runs)).split("<tr")
    rows = {line[0]: line[1:] for line in (re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in lines) if line}
    spatial, vdvae = (settings.model for settings in cfgs.values())
    assert spatial.family == "spatial_lvae" and vdvae.family == "vdvae"
    assert rows["model.likelihood"][:2] == [escape(repr(spatial.likelihood)), escape(repr(vdvae.likelihood))]
    assert rows["model.z_channels"][:2] == [repr(spatial.z_channels), repr(vdvae.z_channels)]
    assert rows["model.downsample"][:2] == [repr(spatial.downsample), "–"]
    assert rows["model.likelihood"][2].count(" or ") == 1, "each family has its default"
    assert not {"run.name", "run.expect"} & rows.keys()
    assert "class=differs" not in "".join(settings_that_differ(runs[:1]))


def test_a_run_without_evaluations_reports_what_there_is(trained: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "begun"
    folder.mkdir(parents=True)
    (folder / "hparams.cfg").write_bytes((report_of(trained).parent / "hparams.cfg").read_bytes())
    command([str(folder)])
    page = Page((folder / "report.html").read_text())
    assert "Nothing has been evaluated yet" not in page.text, "there is what the cfg expects"
    assert "not measured yet" in page.text and "model.z_channels" in page.text and "cannot be loaded" in page.text
    (folder / "metrics.jsonl").write_text("no JSON\n")
    (folder / "status.json").write_text("[1]")
    command([str(folder)])
    assert "model.z_channels" in (folder / "report.html").read_text()


def test_results_of_other_data_or_weights_are_not_shown_as_the_runs_own(trained: Settings, tmp_path: Path) -> None:
    """A likelihood of other images has no tile; a pruned reconstruction says that it is pruned."""
    evaluation = {"step": 6, "nelbo": 82.0, "kl": 9.0, "nll": 73.0}
    history = History(({f"val/{key}" if key != "step" else key: value for key, value in evaluation.items()},))
    own = {"step": 6, "weights": "ema", "trained_on": "small abc", "dataset": "small", "content": "abc"}
    own |= {"split": "test", "n_images": 17}
    likelihood = {**own, "nll_bound": 81.5, "iw_samples": 100}

    def text(**results: dict[str, object]) -> str:
        return Page(writing.page([writing.Reported(Facts("small", trained, history, {}, results, {}))])).text

    tile = "-log p(x), 100 samples, 17 images"
    assert tile in text(likelihood=likelihood)
    for changed in ({"dataset": "other"}, {"split": "train"}, {"weights": "raw"}, {"content": "def"}):
        assert tile not in text(likelihood={**likelihood, **changed}), changed
    assert "other, test, 17 images, step 6, averaged weights" in text(likelihood={**likelihood, "dataset": "other"})
    pruned = text(reconstruction={**own, "nelbo": 120.0, "keep_fraction": 0.03})
    assert "test, 17 images, step 6, averaged weights, keep_fraction 0.03" in pruned


def test_names_are_escaped(trained: Settings) -> None:
    page = writing.page([writing.Reported(writing.Facts.of(trained, {"data": "<script>alert(1)</script>&\"'"}))])
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page


def test_a_report_that_fails_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("no page today")

    monkeypatch.setattr(writing, "page", broken)
    small.write_dump(tmp_path / "dumps")
    train(small.settings(tmp_path, run__report=True))
    assert json.loads((tmp_path / "runs" / "small" / "status.json").read_text())["state"] == "finished"
    assert capsys.readouterr().err.count("report.html could not be written") == 1, "told once"


def test_reports_change_no_number_of_the_training(trained: Settings, tmp_path: Path) -> None:
    small.write_dump(tmp_path / "dumps")
    settings = small.settings(tmp_path)
    train(settings)
    assert not report_of(settings).exists()
    plain, reported = (History.read(report_of(s).parent / "metrics.jsonl").records for s in (settings, trained))
    for one, other in zip(plain, reported, strict=True):
        ignored = {"time", "crc32", "speed/images_per_second", "speed/peak_memory_gib"}
        assert {k: v for k, v in one.items() if k not in ignored} == {
            k: v for k, v in other.items() if k not in ignored
        }


def test_the_error_is_that_of_the_images() -> None:
    model, x = small.model().eval(), small.images(11)
    found = evaluate(model, [(0, Labelled(x[:6])), (1, Labelled(x[6:]))], Processes(0, 1, torch.device("cpu")), seed=3)
    nelbo = []
    with torch.no_grad():
        for j, part in enumerate((x[:6], x[6:])):
            seed_everything("evaluation", 3, j)
            nelbo.append(elbo_terms(part, model(part, posterior_sample)).nelbo)
    values = torch.cat(nelbo).double().numpy()
    assert found.nelbo_error == pytest.approx(values.std(ddof=1) / np.sqrt(11), rel=1e-5)
    assert found.nelbo == pytest.approx(values.mean(), rel=1e-6)


def test_numbers_that_are_none_have_no_error() -> None:
    model, x = small.model().eval(), small.images(4)
    x[0] = torch.nan
    found = evaluate(model, [(0, Labelled(x))], Processes(0, 1, torch.device("cpu")), seed=3)
    assert math.isnan(found.nelbo) and found.nelbo_error is not None and math.isnan(found.nelbo_error)


def test_layers_are_stacked_where_all_are_finite(trained: Settings) -> None:
    """One layer's KL was once not finite, as a step that is skipped leaves it."""
    records = [{"step": k, "train/kl/00": 1.0 + k, "train/kl/01": 10.0 * k} for k in range(4)]
    records[1]["train/kl/01"], records[2]["train/kl/00"] = None, float("nan")  # type: ignore[assignment]
    lines = Line.of_layers(History(tuple(records)), {"train/kl/00": "layer 0", "train/kl/01": "layer 1"})
    assert [(line.label, line.x.tolist(), line.y.tolist()) for line in lines] == [
        ("layer 0", [0, 3], [1, 4]), ("layer 1", [0, 3], [0, 30])
    ]  # fmt: skip
    text = writing.page([writing.Reported(Facts("small", trained, History(tuple(records)), {}, {}, {}))])
    assert "KL of each layer over time" in Page(text).text
    never = Line.of_layers(History(({"step": 1, "a": None, "b": 2.0},)), {"a": "", "b": ""})
    assert layers_chart("t", never, "nats") == "" and Line.of_layers(History(()), {}) == []


def test_the_example_tells_what_to_expect(repository: Path) -> None:
    assert load(repository / "egs" / "quickstart.cfg").run.expect.startswith("test -ELBO about 58 nats")
    own = load(repository / "egs" / "quickstart.cfg", ["run.expect='mine'"])
    assert own.run.expect == "mine"
    assert load(repository / "egs" / "own_images_128.cfg").run.expect.startswith("a GPU is needed"), (
        "not that of its base"
    )


def test_help_answers_without_pytorch() -> None:
    script = (
        "import sys, runpy\nsys.argv = ['x', '--help']\n"
        "try: runpy.run_module('lvae_torch.report', run_name='__main__')\nfinally: assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "--compare" in result.stdout, result.stderr
