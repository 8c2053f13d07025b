"""Names in a state dict of addtt/ladder-vae-pytorch as the neutral ones of ``interop.spatial_lvae``."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

PLACES = [
    (re.compile(r"first_bottom_up\.0"), r"first.conv"),
    (re.compile(r"first_bottom_up\.2\.res"), r"first.block"),
    (re.compile(r"bottom_up_layers\.(\d+)\.net\.(\d+)\.pre_conv"), r"bu.\1.\2.resample"),
    (re.compile(r"bottom_up_layers\.(\d+)\.net\.(\d+)\.res"), r"bu.\1.\2"),
    (re.compile(r"top_down_layers\.(\d+)\.deterministic_block\.(\d+)\.pre_conv"), r"td.\1.\2.resample"),
    (re.compile(r"top_down_layers\.(\d+)\.deterministic_block\.(\d+)\.res"), r"td.\1.\2"),
    (re.compile(r"top_down_layers\.(\d+)\.stochastic\.conv_in_([pq])"), r"stoch.\1.\2"),
    (re.compile(r"top_down_layers\.(\d+)\.stochastic\.conv_out"), r"stoch.\1.out"),
    (re.compile(r"top_down_layers\.(\d+)\.merge\.layer(?:\.0)?"), r"merge.\1.conv"),
    (re.compile(r"top_down_layers\.(\d+)\.merge\.layer\.1"), r"merge.\1"),
    (re.compile(r"top_down_layers\.(\d+)\.skip_connection_merger\.layer\.0"), r"skip.\1.conv"),
    (re.compile(r"top_down_layers\.(\d+)\.skip_connection_merger\.layer\.1"), r"skip.\1"),
    (re.compile(r"final_top_down\.(\d+)\.res"), r"final.\1"),
    (re.compile(r"likelihood\.parameter_net"), r"lik.conv"),
]
TOP_PRIOR = re.compile(r"top_down_layers\.\d+\.top_prior_params")
IN_BLOCK = re.compile(r"(.+)\.block\.(\d+)\.((?:conv\.)?)(weight|bias|running_mean|running_var|num_batches_tracked)")
LEAF = re.compile(r"(.+)\.(weight|bias)")


def is_state(names: Iterable[str]) -> bool:
    """Whether these are names of such a state dict, by its first convolution and its likelihood."""
    return {"first_bottom_up.0.weight", "likelihood.parameter_net.weight"} <= set(names)


def neutral_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """From its names to neutral ones, without batch norm's counters; names that it should not have stay as they are.

    Inside a residual block the original numbers whatever it is made of; norms and convolutions are told apart by what
    they hold, and counted in their order.
    """
    inside: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for name, tensor in state.items():
        if (match := IN_BLOCK.fullmatch(name)) and match[4] in ("weight", "running_mean"):
            is_norm = tensor.dim() == 1
            inside[match[1]][int(match[2])] = "gate" if match[3] else "norm" if is_norm else "conv"
    first_final = min((int(m[1]) for name in state if (m := re.match(r"final_top_down\.(\d+)\.", name))), default=0)
    names = {}
    for name in state:
        if not name.endswith("num_batches_tracked"):
            names[name] = _neutral(name, inside, first_final) or name
    return names


def _neutral(name: str, inside: Mapping[str, Mapping[int, str]], first_final: int) -> str | None:
    if TOP_PRIOR.fullmatch(name):
        return "top_prior"
    if match := IN_BLOCK.fullmatch(name):
        number, kinds = int(match[2]), inside[match[1]]
        kind = kinds.get(number)
        count = sum(kinds[k] == kind for k in kinds if k <= number)
        part = "gate" if kind == "gate" else f"{kind}{count}"
        place = _place(match[1], first_final)
        return None if place is None or kind is None else f"{place}.{part}.{match[4]}"
    if match := LEAF.fullmatch(name):
        place = _place(match[1], first_final)
        return None if place is None else f"{place}.{match[2]}"
    return None


def _place(place: str, first_final: int) -> str | None:
    for pattern, ours in PLACES:
        if match := pattern.fullmatch(place):
            if ours.startswith("final"):  # an interpolation without weights may come first
                return f"final.{int(match[1]) - first_final}"
            return pattern.sub(ours, place)
    return None
