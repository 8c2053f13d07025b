"""What tests of the explorer's server begin with; they skip where the extra ``explore`` is not installed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import explore_cases
import pytest

from lvae_torch.trained.run import TrainedRun

if TYPE_CHECKING:
    from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return explore_cases.run_of("spatial_lvae", tmp_path_factory.mktemp("served"))


@pytest.fixture
def client(run: TrainedRun) -> Iterator["TestClient"]:
    from fastapi.testclient import TestClient

    from lvae_torch.explore.server import make_app
    from lvae_torch.explore.stage import Stage

    host = f"http://{explore_cases.HOST}"
    with TestClient(make_app(Stage(run, "run")), base_url=host, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def idle(client: "TestClient", monkeypatch: pytest.MonkeyPatch) -> "TestClient":
    """A client for requests after which the model must not have worked."""

    def worked(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the model was asked")

    for name in ("sample", "draw", "encode", "decode", "elbo", "kl_of_units", "reconstruct"):
        monkeypatch.setattr(TrainedRun, name, worked)
    return client
