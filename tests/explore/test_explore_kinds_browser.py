"""Runs of other kinds in a real browser: of points, and class-conditional ones. Run by ``make test-browser``."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import explore_cases
import pytest
from browsing import Visitor, browser, chromium, same, visiting

pytest.importorskip("fastapi", reason="the extra 'explore' is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.browser]
__all__ = ["browser", "chromium"]


@contextmanager
def _visiting(kind: str, browser: Any, folder: Path) -> Iterator[Visitor]:
    uvicorn = pytest.importorskip("uvicorn")
    from lvae_torch.explore.server import make_app
    from lvae_torch.explore.serving import listen
    from lvae_torch.explore.stage import Stage

    stage = Stage(explore_cases.run_of(kind, folder), "run")
    with listen(0) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(stage), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with visiting(browser, f"http://127.0.0.1:{listening.getsockname()[1]}/") as visitor:
                yield visitor
        finally:
            server.should_exit = True
            thread.join()


def test_points_are_chosen_in_the_plane(browser: Any, tmp_path: Path) -> None:
    with _visiting("points", browser, tmp_path) as visitor:
        _use_planes(visitor)


def test_classes_are_chosen(browser: Any, tmp_path: Path) -> None:
    with _visiting("of_classes", browser, tmp_path) as visitor:
        page = visitor.open("#samples")
        left = visitor.picture("samples")
        assert "class left" in page.inner_text("#status")
        _choose_class(visitor, "top")
        assert "class=2" in page.url and not same(visitor.picture("samples"), left)
        page = visitor.open("#reconstruction?image=test:4")
        assert "class right" in page.inner_text("#status"), "the image's own"
        own = visitor.picture("heat")
        _choose_class(visitor, "left")
        assert "class left" in page.inner_text("#status") and not same(visitor.picture("heat"), own)
        _choose_class(visitor, "that of the image")
        assert "class=" not in page.url and same(visitor.picture("heat"), own)
        page = visitor.open("#samples?class=99")
        assert "class top" in page.inner_text("#status"), "the last one there is"


def _choose_class(visitor: Visitor, name: str) -> None:
    visitor.page.get_by_label("Class", exact=True).and_(visitor.page.locator("select")).select_option(label=name)
    visitor.ready()


def _use_planes(visitor: Visitor) -> None:
    page = visitor.open("#samples")
    assert visitor.picture("samples").shape == (520, 520, 3)
    for view, figure, said in (("reconstruction", "reconstruction", "image=point:"), ("mix", "between", "a=point:")):
        page = visitor.open(f"#{view}")
        before = visitor.picture(figure)
        page.locator(f"figure[data-name={figure}] .picture").click(position={"x": 200, "y": 200})
        visitor.ready()
        assert said in page.url and not same(visitor.picture(figure), before)
    page = visitor.open("#latents")
    box = page.locator("figure[data-name=plane] img").bounding_box()
    page.mouse.click(
        box["x"] + box["width"] * (44 + 468 * 0.75) / 520, box["y"] + box["height"] * (30 + 464 * 0.5) / 520
    )
    visitor.ready()
    found = re.search(r"moves=0.0=([\d.]+);0.1=([-\d.]+)", page.url)
    assert found is not None and float(found[1]) == pytest.approx(2, abs=0.05) and abs(float(found[2])) < 0.05
