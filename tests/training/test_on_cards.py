"""What a run takes of each card, the smallest change with which it fits, and the table of all cfgs in the docs."""

import math
from pathlib import Path

import pytest
import small
import torch
from test_memory import profiled

from benchmarks.cards import BEGIN, END, PAGE, all_cfgs, rows_of
from lvae_torch import info
from lvae_torch.distributed.memory import GIB
from lvae_torch.elbo.section import LossSection, ValSection
from lvae_torch.errors import CfgError
from lvae_torch.training.flat import FlatParameters
from lvae_torch.training.memory import UPDATE_ON_CARD, AtOnce, Need, Needs, needs
from lvae_torch.training.on_cards import CONTEXT, SPARE, Cards
from lvae_torch.training.optimization import GuardedStep, new_optimizer
from lvae_torch.training.optimizers import OPTIMIZERS
from lvae_torch.training.section import TrainSection


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_takes_no_more_than_is_counted(name: str) -> None:
    """Copies to put back, and what the optimizer makes on its way, as PyTorch's profiler counts them."""
    flat = FlatParameters(torch.nn.Linear(300, 300))
    guarded = GuardedStep(new_optimizer(name, flat.vector), flat)
    peak = profiled(lambda: guarded.step_and_undo(torch.tensor(True))) / flat.vector.nbytes
    assert 3 < peak < UPDATE_ON_CARD + 0.01 + (name == "radam"), "RAdam divides by one more, which no cfg of ours uses"


def test_a_card_needs_the_update_and_gradients_that_wait() -> None:
    model = small.dense("ladder", widths=(64, 32, 32))
    n_bytes = sum(p.nbytes for p in model.parameters())
    host, card = (
        needs(model, TrainSection(), LossSection(), AtOnce(4, 4, 4), of_card=of_card) for of_card in (False, True)
    )
    assert (host.training.least, card.training.least) == (0, UPDATE_ON_CARD * n_bytes)
    assert card.training.of(0) == (5 + UPDATE_ON_CARD) * n_bytes, "weights, gradients, two moments, average, update"
    many = 10**5
    assert card.training.kept(many) - card.training.of(many) == UPDATE_ON_CARD * n_bytes, (
        "apart, not one after the other"
    )


def cards(batch_size: int = 32, n_cards: int = 1, at_once: int = 32) -> Cards:
    """Of a model with 1 GiB of weights, and passes of 1 GiB an image: half of that with each switch that saves."""
    known = {
        (checkpointing, precision): Needs(
            Need(GIB, 0, round(share * GIB)),
            Need(GIB, 0, GIB // 8 if precision == "float32" else GIB // 16),
            Need(0, 0, 0),
        )
        for checkpointing, precision, share in (
            (False, "float32", 1), (True, "float32", 0.5), (False, "bfloat16", 0.5), (True, "bfloat16", 0.25)
        )
    }  # fmt: skip
    train, val = TrainSection(batch_size=batch_size), ValSection(batch_size=at_once)
    return Cards(small.model, train, val, LossSection(), n_cards, 32, known)


@pytest.mark.parametrize(
    ("gib", "changes"),
    [
        (1 + SPARE * (33 + 4), {}),
        (1 + SPARE * (33 + 1), {"val.batch_size": 8}),
        (1 + SPARE * (17 + 2), {"train.accumulate": 2}),
        (1 + SPARE * (2 + 1 / 8), {"train.accumulate": 32}),
        (1 + SPARE * (1.5 + 1 / 8), {"train.activation_checkpointing": True, "train.accumulate": 32}),
        (
            1 + SPARE * (1.25 + 1 / 16),
            {"train.activation_checkpointing": True, "train.precision": "bfloat16", "train.accumulate": 32},
        ),
        (2, None),
    ],
)
def test_the_smallest_change_is_told(gib: float, changes: dict[str, object] | None) -> None:
    fit = cards().fit(math.ceil(gib * GIB))
    assert (None if fit is None else dict(fit.changes)) == changes
    assert fit is None or fit.whole == pytest.approx(gib * GIB)
    assert fit is None or fit.whole == CONTEXT + round(SPARE * (fit.training + fit.evaluation))


def test_cards_share_a_batch() -> None:
    assert [cards(n_cards=n).share for n in (1, 2, 8, 3)] == [32, 16, 4, 0]
    assert cards(n_cards=8).as_it_is().training == 5 * GIB
    assert dict((cards(n_cards=8).fit(round(4.2 * GIB)) or pytest.fail()).changes) == {"train.accumulate": 4}


def test_info_tells_of_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "cards_for", lambda settings, n_cards, n_classes: cards(8, n_cards))
    settings = small.settings(tmp_path, train__batch_size=8)
    told = info.describe_cards(settings, 2, 24)
    for part in (
        "4 of 8 images",
        "2 card(s)",
        "5.0 GiB: weights",
        "4.0 GiB beside it",
        "10.5 GiB, with 1.0",
        "24 GB  ",
    ):
        assert part in told, told
    assert told.endswith("fits")
    assert info.describe_cards(settings, 1, 7).endswith("as it is; 6.8 GiB with --set train.accumulate=2")
    assert "does not fit, whatever the switches" in info.describe_cards(settings, 1, 1)
    with pytest.raises(CfgError, match=r"batch_size = 8, but 3 cards need a multiple of 3"):
        info.describe_cards(settings, 3, 24)


def test_the_docs_have_the_table_that_the_script_makes() -> None:
    """Every cfg has a row, and that of the smallest is as the script says."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    names, told = [cfg.stem for cfg in all_cfgs()], {}
    for words, *cells in lines:
        first, last = words.strip("`").split("` to `") if " to " in words else [words.strip("`")] * 2
        told |= dict.fromkeys(names[names.index(first) : names.index(last) + 1], cells)
    assert set(told) == set(names)
    (row,) = rows_of(Path("egs/latent_variable_models/vae2d_1a.cfg"))
    assert told["vae2d_1a"] == row
