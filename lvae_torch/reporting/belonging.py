"""Whether what a mode measured belongs beside a run's own numbers, and what must be told of it."""

from collections.abc import Mapping
from typing import Any

WEIGHTS = {"ema": "averaged weights", "raw": "raw weights"}


def is_own(found: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether results are of the run's own weights and data, with all latents: numbers that stand beside others of it.

    Fewer images and half precision do not make them another's; ``conditions`` tells of them.

    Args:
        found: ``metrics.json`` of a mode.
        own: what is known of the run's evaluation: ``step``, ``weights`` (ema or raw) and ``split``, or some of them.
    """
    if "step" in own and found.get("step") != own["step"]:  # a step must be told, the others were not always
        return False
    same = all(found.get(key, value) == value for key, value in own.items())
    return same and not _other_data(found) and not _pruning(found)


def conditions(found: Mapping[str, Any]) -> list[str]:
    """How many images results are of, and how they were computed if not in full precision."""
    half = [precision] if (precision := str(found.get("precision", "float32"))) != "float32" else []
    return [f"{found.get('n_images', 0):,} images", *half]


def measured_on(found: Mapping[str, Any]) -> str:
    """All that tells what results are of: data if they are not the run's, split, images, step, weights, pruning."""
    data, pruning = _other_data(found), _pruning(found)
    weights = WEIGHTS.get(str(found.get("weights")), "")
    split, step = str(found.get("split", "")), f"step {found.get('step', 0):,}"
    return ", ".join(part for part in (data, split, *conditions(found), step, weights, pruning) if part)


def _other_data(found: Mapping[str, Any]) -> str:
    """The dataset, if it is not the one that the run was trained on, with its content if the name is the same."""
    dataset, content = str(found.get("dataset", "")), str(found.get("content", ""))
    trained_on, _, known = str(found.get("trained_on", "")).rpartition(" ")
    if not trained_on or not dataset:
        return ""
    if dataset != trained_on:
        return dataset
    return "" if known in (content, "unknown") else f"{dataset} of other content ({content})"


def _pruning(found: Mapping[str, Any]) -> str:
    fraction = found.get("keep_fraction")
    return "" if fraction is None else f"keep_fraction {fraction:g}"
