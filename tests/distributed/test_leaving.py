"""A group is left in bounded time, whatever hangs in it."""

import threading
import time

import pytest
import torch.distributed as dist

from lvae_torch.distributed import leaving


def test_a_group_of_cpus_is_destroyed() -> None:
    leaving.leave_group()  # there is none
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    leaving.leave_group()
    assert not dist.is_initialized()


def test_a_group_of_cards_is_aborted_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(leaving.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(leaving.dist, "get_backend_config", lambda: "cpu:gloo,cuda:nccl")
    monkeypatch.setattr(leaving.dist, "destroy_process_group", lambda: pytest.fail("it may wait for half an hour"))
    monkeypatch.setattr(leaving, "_abort_process_group", lambda: None)
    leaving.leave_group()
    assert not capsys.readouterr().err
    monkeypatch.setattr(leaving, "_abort_process_group", ended.wait)
    monkeypatch.setattr(leaving, "ABORT_SECONDS", 0.05)
    start = time.monotonic()
    leaving.leave_group()
    ended.set()
    assert time.monotonic() - start < 30
    assert "leaving without it" in capsys.readouterr().err
