"""Which rank is missing: the sentence that a user reads when one does not come, fails, or dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from ports import kept_port

from lvae_torch.distributed import pulse, roll_call
from lvae_torch.distributed.roll_call import RollCall
from lvae_torch.errors import LostRank

SECOND = timedelta(seconds=1)
GLOO = RuntimeError("[/somewhere/gloo/gloo/transport/tcp/pair.cc:545] Connection closed by peer [127.0.0.1]:1234")


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> list[RollCall]:
    """Three ranks that met at one store, all in this process."""
    monkeypatch.setattr(roll_call, "GRACE", 0.3)
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=SECOND)
    clients = [server, *(dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=SECOND) for _ in "12")]
    return [RollCall(client, rank, 3) for rank, client in enumerate(clients)]


def sign_in(ranks: list[RollCall]) -> None:
    threads = [threading.Thread(target=rank.sign_in, args=(10 * SECOND,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_ranks_that_do_not_come_are_named(ranks: list[RollCall]) -> None:
    here = f"rank 0 of 3 ({socket.gethostname()}, process {os.getpid()})"
    with pytest.raises(LostRank, match="in vain for rank 1, 2") as error:
        ranks[0].sign_in(SECOND / 10)
    assert here in str(error.value)
    assert "timeout_minutes" in str(error.value)
    sign_in(ranks)


def test_a_failed_collective_names_who_failed_and_who_is_silent(ranks: list[RollCall]) -> None:
    sign_in(ranks)
    assert ranks[1].find_lost(ValueError("a bad picture")) is None
    lost = ranks[0].find_lost(GLOO)
    assert isinstance(lost, LostRank)
    assert "left: ValueError: a bad picture; rank 2 (" in str(lost)
    assert "is silent: killed, hanging or cut off" in str(lost)
    assert lost.exit_status == 75
    assert ranks[0].find_lost(lost) is None, "found already"


def test_ranks_that_lost_one_too_are_not_blamed(ranks: list[RollCall]) -> None:
    sign_in(ranks)
    assert ranks[1].find_lost(GLOO) is not None
    lost = str(ranks[0].find_lost(dist.DistBackendError("NCCL")))
    assert "rank 2 (" in lost and "rank 1 (" not in lost
    assert "network between them failed" in str(ranks[2].find_lost(GLOO)), "all have spoken by now"


def test_a_store_that_answers_slowly_is_waited_for(ranks: list[RollCall], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is busy: the time that the ranks have to report is none of the store's."""
    sign_in(ranks)
    look = ranks[0]._has_left

    def slow(rank: int) -> bool:
        time.sleep(0.25)
        return look(rank)

    monkeypatch.setattr(ranks[0], "_has_left", slow)
    lost = str(ranks[0].find_lost(GLOO))
    assert "rank 1 (" in lost and "rank 2 (" in lost and "is silent" in lost


def test_one_that_begins_anew_forgets_how_it_ended(ranks: list[RollCall]) -> None:
    sign_in(ranks)
    ranks[1].find_lost(ValueError("of old"))
    sign_in(ranks)
    assert "of old" not in str(ranks[0].find_lost(GLOO))


def test_a_store_that_is_gone_is_named() -> None:
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=SECOND)
    client = RollCall(dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=SECOND), 1, 2)
    del server
    assert "nor does the node of rank 0 answer" in str(client.find_lost(GLOO))


def two_ranks(repository: Path, before: str, after: str) -> tuple[list[subprocess.Popen[str]], list[str]]:
    """Two ranks, started by hand, of a program that calls ``end()`` to kill rank 1."""
    script = (
        "import os, signal\n"
        "import torch.distributed as dist\n"
        "from lvae_torch.distributed import roll_call\nroll_call.GRACE = 0.5\n"
        "from lvae_torch.cli import main\nfrom lvae_torch.distributed.processes import start_processes\n"
        "def end():\n"
        "    if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "def command(argv):\n"
        f"    {before}\n"
        "    with start_processes('cpu') as processes:\n"
        f"        {after}\n"
        "main(command, [])\n"
    )
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(repository), "GLOO_SOCKET_IFNAME": "lo"}
    with kept_port() as port:
        place["MASTER_PORT"] = str(port)
        both = [
            subprocess.Popen(
                [sys.executable, "-c", script], env={**os.environ, **place, "RANK": rank}, stderr=-1, text=True
            )
            for rank in "01"
        ]
        return both, [process.communicate(timeout=250)[1] for process in both]


def test_a_rank_that_dies_is_named_by_the_other(repository: Path) -> None:
    both, errors = two_ranks(repository, "pass", "processes.barrier(); end(); processes.barrier()")
    assert [process.returncode for process in both] == [75, -signal.SIGKILL], errors
    assert f"rank 1 ({socket.gethostname()}, process {both[1].pid}) is silent" in errors[0]
    assert "Traceback" not in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("make = dist.init_process_group; dist.init_process_group = lambda *a, **k: (end(), make(*a, **k))", "pass"),
        ("pass", "end(); processes.require_same('settings', 'the same', 'Mend it.')"),
    ],
    ids=["before the group is made", "before settings are compared"],
)
def test_a_rank_that_dies_at_the_start_ends_the_other_within_half_a_minute(
    repository: Path, before: str, after: str
) -> None:
    """No collective fails there: the other one waits for an answer, which may be long in coming."""
    start = time.monotonic()
    both, errors = two_ranks(repository, before, after)
    assert [process.returncode for process in both] == [75, -signal.SIGKILL], errors
    assert f"rank 1 ({socket.gethostname()}, process {both[1].pid}) is silent" in errors[0]
    assert "Traceback" not in errors[0]
    assert time.monotonic() - start < 30 + 10, "seconds, with those of both imports"


def test_a_rank_that_fails_at_the_start_is_heard_at_once(ranks: list[RollCall]) -> None:
    sign_in(ranks)
    for failed in ranks[1:]:
        failed.find_lost(ValueError("no such dump"))
    with pytest.raises(LostRank, match=r"rank 1 \(.* left: ValueError: no such dump; rank 2 \("):
        ranks[0].told_by_all("settings", "")


def test_ranks_that_tell_and_leave_between_two_looks_have_told(
    ranks: list[RollCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do when they see that the ranks differ, and rank 0 is slow."""
    sign_in(ranks)
    ask = ranks[0]._reason

    def slow(rank: int) -> str:
        if not ranks[0]._has_left(rank):
            threads = [threading.Thread(target=other.told_by_all, args=("settings", "b")) for other in ranks[1:]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for other in ranks[1:]:
                other.find_lost(ValueError("the settings differ"))
        return ask(rank)

    monkeypatch.setattr(ranks[0], "_reason", slow)
    assert ranks[0].told_by_all("settings", "a") == ["a", "b", "b"]


def test_a_rank_whose_pulse_stands_still_is_named(ranks: list[RollCall], monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that beats is not, whenever it answers."""
    sign_in(ranks)
    monkeypatch.setattr(pulse, "SILENCE", 2.5)
    ranks[2].close()
    telling = threading.Timer(1, ranks[1]._store.set, ("settings/1", ""))
    telling.start()
    with pytest.raises(LostRank, match=r"lost the others: rank 2 \([^;]*\) is silent"):
        ranks[0].told_by_all("settings", "")
    telling.join()


def test_what_was_left_by_those_before_is_not_met_again(ranks: list[RollCall]) -> None:
    """torchrun keeps its store over restarts: addresses of the dead must not be read, nor their signatures believed."""
    sign_in(ranks)
    before = ranks[1].store
    before.set("address", "of the dead")
    with pytest.raises(LostRank, match="in vain for rank 1, 2"):
        ranks[0].sign_in(SECOND / 10)
    with pytest.raises(LostRank, match=r"in vain for rank 0\."):
        ranks[2].sign_in(SECOND / 10)
    sign_in(ranks)
    assert not any(rank.store.check(["address"]) for rank in ranks)
    ranks[2].store.set("address", "of the living")
    assert {rank.store.get("address") for rank in ranks} == {b"of the living"}
