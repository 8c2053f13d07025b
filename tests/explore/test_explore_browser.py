"""The explorer in a real browser, every view used as a person would. Run by ``make test-browser``; needs Chromium."""

import base64
import io
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import explore_cases
import numpy as np
import pytest
from browsing import CONTRAST, NARROW, QUICK_MOVES, UNNAMED, Visitor, browser, chromium, same, serving, visiting
from PIL import Image

pytest.importorskip("fastapi", reason="the extra 'explore' is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.browser]
BUNDLE = "egs/pretrained/spatial_lvae_mnist"
N_LAYERS, MIDDLE, ALIVE = 6, 3, 7
"""Latent layers of the bundle, the first with a map of 8x8, and its channel that has learned something."""
VIEWS = ("samples", "reconstruction", "mix", "latents")
__all__ = ["browser", "chromium"]


@pytest.fixture(scope="module")
def dumps(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the bundle's dataset: digits that come with the tests."""
    folder = tmp_path_factory.mktemp("dumps")
    explore_cases.write_digits(folder, repository / "tests" / "recorded" / "digits.npy")
    return folder


@pytest.fixture(scope="module")
def address(repository: Path, dumps: Path) -> Iterator[str]:
    """The command itself, as a user starts it."""
    command = [sys.executable, "-m", "lvae_torch", "explore", BUNDLE, "--no-browser", "--port", "0"]
    with serving([*command, "--set", f"data.dumps={dumps}"], repository) as address:
        yield address


@pytest.fixture
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    with visiting(browser, address) as visitor:
        yield visitor


def tile(picture: np.ndarray, k: int, columns: int = 8, side: int = 56) -> np.ndarray:
    row, column = divmod(k, columns)
    return picture[2 + row * (side + 2) :, 2 + column * (side + 2) :][:side, :side]


def test_the_first_load_is_small_and_asks_nobody_else(visitor: Visitor) -> None:
    visitor.open("")
    assert visitor.loaded_bytes < 300_000
    assert visitor.hosts == {visitor.address.split("/")[2]}
    print(f"\nfirst load: {visitor.loaded_bytes / 1000:.0f} kB in {visitor.n_requests} requests")


def test_samples_follow_the_sliders_and_the_address_reproduces_them(visitor: Visitor) -> None:
    page = visitor.open("")
    first = visitor.picture("samples")
    assert first.shape == (466, 466, 3)
    visitor.slide("all layers", 0.4)
    cool = visitor.picture("samples")
    assert not same(first, cool) and "t=0.4" in page.url
    page.get_by_role("radio", name="each layer").check()
    visitor.slide("layer 0 (top), 8×2×2", 1.2)
    page.get_by_role("button", name="New seed").click()
    visitor.ready()
    address, mixed = page.url, visitor.picture("samples")
    assert re.search(r"seed=\d+&n=64.*t=1.2,0.4,0.4", address)
    visitor.open(address[address.index("#") :])
    assert same(visitor.picture("samples"), mixed)
    page.get_by_role("radio", name="linear").check()
    visitor.ready()
    assert "t=linear:1.2:0.4" in page.url
    page.get_by_label("Number (up to 1,024)").fill("9")
    visitor.ready()
    assert visitor.picture("samples").shape == (176, 176, 3)


def test_a_clicked_sample_keeps_its_top_layers(visitor: Visitor) -> None:
    page = visitor.open("#samples?seed=7")
    before = visitor.picture("samples")
    page.get_by_role("button", name="sample 10: keep its top layers").click()
    visitor.ready()
    kept = visitor.picture("samples")
    assert "keep=10,3" in page.url and same(tile(kept, 10), tile(before, 10))
    assert not same(tile(kept, 11), tile(before, 11))
    visitor.slide("Top layers kept", N_LAYERS)
    everything = visitor.picture("samples")
    assert all(np.abs(tile(everything, k).astype(int) - tile(before, 10)).max() <= 1 for k in range(64))
    page.get_by_role("button", name="Let go").click()
    visitor.ready()
    assert same(visitor.picture("samples"), before) and "keep" not in page.url


def test_reconstruction_shows_images_layers_and_a_dropped_picture(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("#reconstruction")
    first, heat = visitor.picture("reconstruction"), visitor.picture("heat")
    page.get_by_role("button", name="Next").click()
    visitor.ready()
    assert not same(visitor.picture("reconstruction"), first) and "image=test:1" in page.url
    page.get_by_label("Number", exact=True).fill("0")
    visitor.ready()
    assert same(visitor.picture("reconstruction"), first) and same(visitor.picture("heat"), heat)
    page.get_by_role("button", name="layer 1, 8×4×4").click()
    visitor.ready()
    assert not same(visitor.picture("heat"), heat) and "heat=1" in page.url
    elbo, nll, kl = (float(text.split()[0]) for text in page.locator(".terms dd").all_inner_texts()[:3])
    assert elbo == pytest.approx(-nll - kl, abs=0.02)
    layers = [float(text.split()[0]) for text in page.locator(".kl .value").all_inner_texts()]
    assert layers[0] == pytest.approx(sum(layers[1:]), abs=0.05)
    page.get_by_role("button", name="New seed").click()
    visitor.ready()
    picture = tmp_path / "mine.png"
    Image.fromarray((np.indices((60, 90)).sum(0) % 30 < 12).astype(np.uint8) * 255).save(picture)
    page.locator("input[type=file]").set_input_files(picture)
    page.wait_for_url(re.compile(r"image=drop(:|%3A)"))
    visitor.ready()
    assert "mine.png: 90 x 60, cropped to 60 x 60, scaled (bilinear) to 28 x 28 pixels, 2 levels" in page.inner_text(
        "#numbers"
    )
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:50])
    page.locator("input[type=file]").set_input_files(tmp_path / "broken.png")
    page.wait_for_selector("#error:not([hidden])")
    assert "broken.png: no picture that can be read" in page.inner_text("#error")
    visitor.expected_errors.append("422")


def test_mix_goes_by_layers_and_along_the_line(visitor: Visitor) -> None:
    page = visitor.open("#mix?a=test:0&b=test:3&layers=1")
    one = visitor.picture("mix")
    visitor.slide("Top layers from A", N_LAYERS)
    all_of_a = visitor.picture("mix")
    assert not same(one, all_of_a) and f"layers={N_LAYERS}" in page.url
    page.get_by_role("button", name="0 of A: choose").click()
    visitor.ready()
    none_of_a = visitor.picture("mix")
    page.get_by_role("button", name="Exchange A and B").click()
    visitor.slide("Top layers from A", N_LAYERS)
    assert np.abs(tile(visitor.picture("mix"), 1, 3).astype(int) - tile(none_of_a, 1, 3)).max() <= 1
    visitor.slide("Way from A to B", 0.33)
    assert "weight=0.33" in page.url and "33%" in page.inner_text("figure[data-name=line] .labels")
    page.get_by_role("button", name="12%: choose").click()
    visitor.ready()
    assert "weight=0.125" in page.url


def test_latents_are_moved_everywhere_or_at_a_clicked_place(visitor: Visitor) -> None:
    page = visitor.open("#latents?base=seed:3")
    page.get_by_label("Layer", exact=True).select_option(str(MIDDLE))
    visitor.ready()
    visitor.slide("Channel", ALIVE)
    visitor.slide("Value", -2.5)
    everywhere = visitor.picture("latents")
    assert f"moves={MIDDLE}.{ALIVE}=-2.5" in page.url
    box = page.locator("figure[data-name=latents] img").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.18, box["y"] + box["height"] * 0.53)
    visitor.ready()
    place = re.search(r"@(\d),(\d)", page.url)
    assert place is not None and (place[1], place[2]) == ("4", "4"), "the middle of the image is that of the map"
    assert page.locator(".place").count() == 3
    here = visitor.picture("latents")
    assert not same(here, everywhere)
    difference = tile(here, 2, 3).astype(int).sum(2)
    assert difference[:14].sum() < difference[14:].sum(), "what is far from the place hardly changes"
    page.get_by_label("Row").fill("0")
    visitor.ready()
    page.get_by_role("button", name="+3: choose").click()
    visitor.ready()
    assert f"moves={MIDDLE}.{ALIVE}=3@0,4" in page.url
    page.get_by_role("button", name="Keep this and move another").click()
    visitor.ready()
    assert page.url.count("@0,4") == 2
    page.get_by_role("button", name=re.compile(r"channel 0, .* nats: move it")).click()
    visitor.ready()
    assert page.url.endswith(f";{MIDDLE}.0=0@0,4"), "a bar of the layer's channels chooses what is moved"
    page.get_by_role("button", name=f"Undo the move of layer {MIDDLE}, channel {ALIVE}").click()
    page.get_by_role("button", name="Everywhere").click()
    visitor.ready()
    assert "@" not in page.url


@pytest.mark.parametrize("view", VIEWS)
def test_saved_pictures_hold_their_settings_and_python_makes_them_again(
    visitor: Visitor, view: str, repository: Path, tmp_path: Path
) -> None:
    page = visitor.open(f"#{view}")
    page.get_by_role("button", name="Show Python").click()
    lines = page.inner_text("#program")
    page.get_by_role("button", name="Close").click()
    script = f"import os\nos.chdir({str(tmp_path)!r})\n" + lines.replace("'egs/", f"'{repository}/egs/")
    command = [sys.executable, "-W", "error", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "2"}  # threads as the server has
    result = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    for figure in page.locator("figure").all():
        with page.expect_download() as download:
            figure.get_by_role("button", name="Save PNG").click()
        saved = Image.open(download.value.path())
        assert same(np.asarray(saved), np.asarray(Image.open(tmp_path / download.value.suggested_filename)))
        assert json.loads(saved.text["Settings"])["view"] == view and saved.text["Python"].strip() == lines.strip()


def test_the_keyboard_is_enough(visitor: Visitor) -> None:
    page = visitor.open("")
    for key, view in enumerate(VIEWS, 1):
        page.keyboard.press(str(key))
        page.locator(f"#pictures.{view}").wait_for()
        visitor.ready()
    page.keyboard.press("1")
    page.locator("#pictures.samples").wait_for()
    visitor.ready()
    before = visitor.picture("samples")
    page.keyboard.press("r")
    visitor.ready()
    assert not same(visitor.picture("samples"), before)
    page.locator(".over button").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    visitor.ready()
    assert "keep=17," in page.url
    page.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowLeft")
    visitor.ready()
    assert "t=0.99" in page.url
    page.keyboard.press("p")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 360])
def test_all_has_names_contrast_and_room(browser: Any, address: str, scheme: str, width: int) -> None:
    with visiting(browser, address, width=width, color_scheme=scheme) as visitor:
        for view in VIEWS:
            page = visitor.open(f"#{view}")
            assert page.evaluate(UNNAMED) == []
            assert page.evaluate(NARROW) <= 0, view
            assert page.evaluate(CONTRAST) == [], view


def test_what_cannot_be_is_told_and_does_not_end_the_page(visitor: Visitor) -> None:
    page = visitor.open("#latents?moves=0.99=1")
    assert "There is no channel 99: layer 0 has channels 0 to 7" in page.inner_text("#error")
    visitor.expected_errors.append("422")
    visitor.slide("Channel", 2)
    assert page.locator("#error").is_hidden() and visitor.picture("latents").any()
    page = visitor.open("#samples?seed=x&n=-3&t=a,b&keep=1&show=nothing")
    assert visitor.picture("samples").any() and "seed=0&n=1" in page.url
    visitor.open("#reconstruction?image=drop:0123456789abcdef")
    assert "drop it onto the page again" in page.inner_text("#error")


def test_pages_of_others_are_refused(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto("data:text/html,<title>other</title>")
    asked = "(address) => fetch(address, {method: 'POST', body: '{}'}).then((r) => r.status, () => 'refused')"
    assert page.evaluate(asked, f"{address}api/samples") == "refused"
    page.close()


def test_slider_moves_are_quick(visitor: Visitor) -> None:
    """Printed, not asserted: other work on the machine counts too."""
    visitor.open("#samples")
    took = visitor.times("all layers", [0.5 + 0.01 * k for k in range(55)])[5:]
    print(f"\nnew 8x8 grid after a move of a slider: median {statistics.median(took):.0f} ms of 50 moves, "
          f"from {min(took):.0f} to {max(took):.0f} ms")  # fmt: skip


def test_fast_moves_do_not_pile_up(visitor: Visitor) -> None:
    page = visitor.open("#samples")
    before = visitor.n_posts
    page.evaluate(QUICK_MOVES, "t all layers")
    visitor.ready()
    assert visitor.n_posts - before <= 3 and "t=0.99" in page.url


def test_pictures_on_the_page_are_the_files(visitor: Visitor) -> None:
    """No scaling or other change on the way: what the page decodes is what the server drew."""
    page = visitor.open("#samples")
    source = page.locator("figure[data-name=samples] img").get_attribute("src")
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    assert same(whole, visitor.picture("samples"))
