"""What the system shows of NVIDIA cards, by stand-ins for its files: no test needs a card, or a machine without one."""

from pathlib import Path

import pytest
import torch

from lvae_torch.distributed import cards, place
from lvae_torch.distributed.place import choose_device
from lvae_torch.errors import CfgError

LINE = "NVRM version: NVIDIA UNIX {}Kernel Module  {}  Tue Jan  2 03:04:05 UTC 2024\nGCC version:  gcc 12\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the system's."""
    monkeypatch.setattr(cards, "DRIVER", (tmp_path / "version",))
    monkeypatch.setattr(cards, "SHOWN", ((tmp_path / "gpus", "*"), (tmp_path, "nvidia[0-9]*")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def has_card(system: Path, driver: str = "550.54.14") -> None:
    (system / "version").write_text(LINE.format("x86_64 ", driver))
    (system / "nvidia0").touch()


def test_a_driver_is_found_by_its_files_or_its_tool(system: Path) -> None:
    assert not cards.has_driver()
    (system / "version").touch()
    assert cards.has_driver()
    (system / "version").rename(system / "nvidia-smi")
    (system / "nvidia-smi").chmod(0o755)
    assert cards.has_driver()


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (LINE.format("x86_64 ", "580.65.06"), "580.65.06"),
        (LINE.format("Open ", "570.172").replace("Kernel Module", "Kernel Module for x86_64"), "570.172"),
        ("something else", None),
        (None, None),
    ],
)
def test_the_drivers_version(system: Path, line: str | None, version: str | None) -> None:
    if line is not None:
        (system / "version").write_text(line)
    assert cards.driver_version() == version


def test_cards_are_those_that_are_not_hidden(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cards.cards_shown() == 0
    for name in ("gpus/0000:17:00.0", "gpus/0000:65:00.0", "nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (system / name).parent.mkdir(exist_ok=True)
        (system / name).touch()
    assert cards.cards_shown() == 2
    for chosen, n in (("", 0), ("-1", 0), ("1", 1), ("0, 1", 2), ("0,1,2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert cards.cards_shown() == n


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        ((7, 0), False),
        ((7, 5), True),
        ((8, 6), True),
        ((8, 9), True),
        ((9, 0), True),
        ((10, 0), False),
        ((12, 0), True),
    ],
)
def test_code_runs_on_its_own_generation_and_newer_members_of_it(capability: tuple[int, int], runs: bool) -> None:
    assert cards.is_built_for(capability, ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_120"]) == runs


def test_code_that_is_compiled_on_arrival_runs_on_all_that_is_newer() -> None:
    assert cards.is_built_for((12, 1), ["sm_75", "compute_90"]) and not cards.is_built_for((8, 9), ["compute_90"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")
class TestACardThatIsNotUsed:
    def test_no_card_is_no_error_where_any_device_will_do(self, system: Path) -> None:
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(CfgError, match=r"device = cuda, but this machine shows no NVIDIA card"):
            choose_device("cuda")

    @pytest.mark.parametrize("wanted", ["auto", "cuda"])
    def test_a_card_with_an_old_driver_is_an_error(
        self, system: Path, wanted: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        has_card(system)
        with pytest.raises(CfgError, match=r"an NVIDIA card, and .* needs driver 580 or newer, while this one is 550"):
            choose_device(wanted)
        assert choose_device("cpu") == torch.device("cpu"), "as asked for"

    def test_a_build_without_cuda_says_so(self, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        has_card(system)
        with pytest.raises(CfgError, match="is built without CUDA"):
            choose_device("auto")

    def test_another_reason_is_told_in_pytorchs_words(self, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        has_card(system, "590.1")

        def init() -> None:
            raise RuntimeError("Unexpected error from\n  cudaGetDeviceCount().")

        monkeypatch.setattr(torch.cuda, "init", init)
        with pytest.raises(CfgError, match=r"cannot use it: Unexpected error from cudaGetDeviceCount\(\)\. Compare"):
            choose_device("auto")


def test_a_card_too_old_for_the_build_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    for wanted in ("auto", "cuda"):
        with pytest.raises(CfgError, match=r"Tesla V100\) has compute capability 7\.0; .* is built for 7\.5 and newer"):
            place.choose_device(wanted)


def test_cards_are_called_as_they_are_chosen(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cards.cards_by_name() == []
    has_card(system)
    (system / "nvidia1").touch()
    assert cards.cards_by_name() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-8932f937")
    assert cards.cards_by_name() == ["1", "GPU-8932f937"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert cards.cards_by_name() == []
