"""``[train] compile`` together with ``activation_checkpointing``: the steps of every family are those without."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import steps
import torch

from lvae_torch.distributed.compiling import CACHES, prepare_compiling
from lvae_torch.errors import CfgError
from lvae_torch.models.families import FAMILIES

MODELS: dict[str, Callable[[], Any]] = {
    "spatial_lvae": lambda: small.model(batch_norm=True, dropout=0.2),
    **small.SMALL,
    "efficient_vdvae": small.very_deep,
    "vdvae": lambda: small.residual(enc_blocks="8x1,8d2,4x1", dec_blocks="4x1,8m4,8x1", custom_width_str=""),
}


def test_every_family_is_here() -> None:
    assert MODELS.keys() == FAMILIES.keys()


def two_steps(model: Any, backend: str | None) -> list[torch.Tensor]:
    """The gradient of the second step, and the statistics of batch norm after it."""
    torch._dynamo.reset()
    step = steps.train_step(model.train(), compiler=backend)
    for k in range(2):
        torch.manual_seed(k)
        step(small.images(4, model.image_shape, 2).to(step.flat.vector.dtype), k)
    return [step.flat.gradient.clone(), *(buffer.clone() for buffer in model.buffers())]


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "vdvae" in name else []) for name in MODELS]
)
def test_a_step_is_one_program(name: str) -> None:
    """No call, no property and no generator in it makes the compiler begin a new one."""
    torch._dynamo.reset()
    model = MODELS[name]().train()
    step = steps.train_step(model)
    computed = torch.compile(step._loss, backend="eager", fullgraph=True)
    loss, terms = computed(small.images(4, model.image_shape, 2), model.any_class(4), torch.tensor(1.0), False)
    assert loss.isfinite() and len(terms.nll) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", MODELS)
def test_compiled_and_recomputed_steps_are_the_same(name: str) -> None:
    """By the compiler's front and its gradients alone, which is quick; what it makes of them is the compiler's."""
    models = [MODELS[name]() for _ in range(2)]
    for model in models:
        model.rematerialize()
    for ours, plain in zip(two_steps(models[0], "aot_eager"), two_steps(models[1], None), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5 * float(plain.double().abs().max()))


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a busy machine compiles for long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["spatial_lvae", "vae"])
def test_steps_compiled_to_the_end_are_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``[train] compile`` has it, but in float64 and with PyTorch's random numbers."""
    for variable in CACHES:
        monkeypatch.setenv(variable, "")  # so that it is as before afterwards
        monkeypatch.delenv(variable)
    prepare_compiling(tmp_path)
    with torch._inductor.config.patch(fallback_random=True):
        compiled = two_steps(MODELS[name]().double(), "inductor")
    for ours, plain in zip(compiled, two_steps(MODELS[name]().double(), None), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9 * float(plain.abs().max()))
    assert any((tmp_path / ".compiled" / "inductor").rglob("*.cpp"))


def test_no_compiler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CfgError, match=r"^\[train\] compile = True .* no C compiler .* or set compile = False\.$"):
        prepare_compiling(tmp_path)


def test_what_is_compiled_is_kept_beside_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in CACHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    monkeypatch.chdir(tmp_path)
    prepare_compiling(Path("runs"))
    assert os.environ.pop("TORCHINDUCTOR_CACHE_DIR") == str(tmp_path / "runs" / ".compiled" / "inductor")
    assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere"
