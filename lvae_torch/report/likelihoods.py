"""The table of likelihoods: every bound that was measured of a run, with its error and what it was measured on."""

from collections.abc import Iterator
from typing import Any

from lvae_torch.report.facts import Facts, told_with_error
from lvae_torch.reporting.belonging import measured_on

Row = tuple[str, str, str, str, str]
"""Name, nats ± error, what is published or expected, bits/dim, what it was measured on."""


def likelihood_rows(facts: Facts, with_name: bool) -> Iterator[Row]:
    """The rows of a run; the first has the number that is published or expected.

    Args:
        with_name: begin each row with the run's name, where there are several.
    """
    name = f"{facts.name}: " if with_name else ""
    expected = facts.expected
    for row in _rows(facts):
        yield (f"{name}{row[0]}", row[1], expected, row[2], row[3])
        expected = ""
    if expected:
        yield (f"{name}not measured yet", "–", expected, "–", "–")


def _rows(facts: Facts) -> Iterator[tuple[str, str, str, str]]:
    if evaluation := facts.evaluation:
        on = f"{facts.settings.data.val_split}, step {evaluation['step']:,}"
        value, error = evaluation["nelbo"], evaluation.get("nelbo_error")
        yield ("-ELBO", told_with_error(value, error), _bits(evaluation.get("bpd")), on)
        terms = f"{told_with_error(evaluation.get('nll'))} + {told_with_error(evaluation.get('kl'))}"
        yield ("-log p(x|z) + KL", terms, "", on)
        if "as_published/nelbo" in evaluation:
            published = told_with_error(evaluation["as_published/nelbo"])
            yield ("-ELBO with the original's approximations", published, _bits(evaluation.get("as_published/bpd")), on)
        if "iw_bound" in evaluation:
            samples = facts.settings.val.iw_samples
            bound = told_with_error(evaluation["iw_bound"])
            yield (f"-log p(x), {samples:,} samples", bound, _bits(evaluation.get("iw_bpd")), on)
    if found := facts.results.get("reconstruction"):
        value = told_with_error(found.get("nelbo"), found.get("standard_error"))
        yield ("-ELBO (reconstruction)", value, _bits(found.get("bits_per_dim")), measured_on(found))
    if found := facts.results.get("likelihood"):
        label = f"-log p(x), {found.get('iw_samples', 0):,} samples (likelihood)"
        value = told_with_error(found.get("nll_bound"), found.get("standard_error"))
        yield (label, value, _bits(found.get("bits_per_dim")), measured_on(found))
    if (found := facts.results.get("compression")) and found.get("bits_per_dim") is not None:
        yield ("compressed without loss (compression)", "", _bits(found["bits_per_dim"]), measured_on(found))


def _bits(value: Any) -> str:
    return "" if value is None else told_with_error(value, digits=4)
