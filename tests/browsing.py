"""A visitor of the explorer's page: Chromium driven by Playwright, and what both said and asked."""

import base64
import io
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")


UNNAMED = """() => {
  const named = (e) => e.getAttribute("aria-label") || e.alt || e.labels?.[0]?.textContent
    || e.querySelector("legend")?.textContent || (["BUTTON", "A"].includes(e.tagName) && e.textContent);
  const all = [...document.querySelectorAll("button, input, select, img, fieldset, a")];
  return all.filter((e) => !named(e)).map((e) => e.outerHTML);
}"""
"""Elements that a screen reader has no name for."""
NARROW = "() => document.documentElement.scrollWidth - window.innerWidth"
"""Pixels by which the page is wider than the window."""
CONTRAST = """() => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    const colour = getComputedStyle(e).backgroundColor;
    return /, 0\\)/.test(colour) ? ground(e.parentElement) : colour;
  };
  const ratio = (e) => {
    const pair = [light(getComputedStyle(e).color), light(ground(e))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  };
  const all = [...document.querySelectorAll("p, label, legend, h1, h2, button, a, dd, dt, span")];
  const seen = all.filter((e) => e.textContent.trim() && e.offsetParent && !e.closest(".skip, .over") && !e.disabled);
  return seen.filter((e) => ratio(e) < 4.5).map((e) => e.outerHTML.slice(0, 90));
}"""
"""Texts whose contrast is below the 4.5 of WCAG 2, level AA."""
QUICK_MOVES = """(key) => {
  const slider = [...document.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key);
  for (let k = 0; k < 100; k++) {
    slider.value = k / 100;
    slider.dispatchEvent(new Event("input"));
  }
}"""


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium."""
    given = os.environ.get("LVAE_CHROMIUM")
    found = next(filter(None, map(shutil.which, [given] if given else NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: build/browser.sh --install")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[str]:
    """Run the command, and give the address that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line
        yield line.split()[0]
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


@dataclass
class Visitor:
    """A page, and helpers to use it."""

    page: Any
    address: str
    hosts: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    expected_errors: list[str] = field(default_factory=list)
    """Parts of messages on the browser's console that a test brings about."""
    loaded_bytes: int = 0
    n_requests: int = 0
    n_posts: int = 0

    def open(self, hash_: str) -> Any:
        """The page at an address, loaded anew."""
        self.page.goto("about:blank")
        self.page.goto(self.address + hash_)
        self.page.wait_for_selector("#stage[aria-busy=false]")
        return self.page

    def ready(self) -> None:
        """Wait until the newest answer is shown."""
        self.page.wait_for_timeout(50)
        self.page.wait_for_selector("#stage[aria-busy=false]", state="attached")

    def picture(self, name: str) -> np.ndarray:
        source = self.page.locator(f"figure[data-name={name}] img").get_attribute("src")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))

    def slide(self, label: str, value: float) -> None:
        self.page.get_by_role("slider", name=label, exact=True).fill(str(value))
        self.ready()

    def times(self, label: str, values: Sequence[float]) -> list[float]:
        """Milliseconds from each move of a slider until the new picture is drawn."""
        script = """async ([label, values]) => {
          const sliders = [...document.querySelectorAll("input[type=range]")];
          const slider = sliders.find((e) => e.labels[0].textContent === label);
          const image = document.querySelector("figure img");
          const took = [];
          for (const value of values) {
            const begun = performance.now();
            const shown = new Promise((done) => image.addEventListener("load", done, { once: true }));
            slider.value = value;
            slider.dispatchEvent(new Event("input"));
            await shown;
            await new Promise(requestAnimationFrame);
            took.push(performance.now() - begun);
          }
          return took;
        }"""
        found: list[float] = self.page.evaluate(script, [label, list(values)])
        return found


@contextmanager
def visiting(browser: Any, address: str, width: int = 1360, color_scheme: str = "light") -> Iterator[Visitor]:
    """A visitor with an empty profile; what went wrong on the page fails the test."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=color_scheme)
    context.set_default_timeout(60_000)
    page = context.new_page()
    visitor = Visitor(page, address)

    def requested(request: Any) -> None:
        if request.url.startswith("http"):
            visitor.hosts.add(urlsplit(request.url).netloc)
            visitor.n_requests += 1
            visitor.n_posts += request.method == "POST"

    def answered(request: Any) -> None:
        sizes = request.sizes()
        visitor.loaded_bytes += sizes["responseBodySize"] + sizes["responseHeadersSize"]

    page.on("request", requested)
    page.on("requestfinished", answered)
    page.on("console", lambda message: visitor.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: visitor.problems.append(str(error)))
    yield visitor
    context.close()
    assert not [p for p in visitor.problems if not any(part in p for part in visitor.expected_errors)], visitor.problems
    assert visitor.hosts <= {urlsplit(address).netloc}


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures have the same pixels."""
    return one.shape == other.shape and bool((one == other).all())
