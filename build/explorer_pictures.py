"""``python -m build.explorer_pictures``: the pictures of ``docs/explorer/``, taken again of the bundles as they are.

Needs Chromium (``build/browser.sh --install``) and the dump of ``lvae data binarized_mnist``.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "explorer"
WIDTH = 1200
PATIENCE = 300.0
"""Seconds for an answer, also of a busy machine."""


class Shot(NamedTuple):
    """A view of a bundle, as the address in the browser holds it."""

    name: str
    bundle: str
    view: str
    height: int
    scheme: str = "light"


SHOTS = (
    Shot("samples", "spatial_lvae_mnist", "samples?seed=12&n=64&show=mean&t=1,0.8,0.6&keep=21,1", 800, "dark"),
    Shot("reconstruction", "efficient_vdvae_mnist", "reconstruction?image=test:4021&seed=0&t=1", 1040),
    Shot("mix", "efficient_vdvae_mnist", "mix?a=test:7&b=test:5021&layers=2&weight=0.5", 790),
    Shot("latents", "spatial_lvae_mnist", "latents?base=seed:8&t=1&moves=0.4=1", 925),
)


def main() -> None:
    found = subprocess.run([ROOT / "build" / "browser.sh"], capture_output=True, text=True, check=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.stdout.strip(), args=["--no-sandbox"])
        for bundle in dict.fromkeys(shot.bundle for shot in SHOTS):
            with explored(bundle) as address:
                for shot in (shot for shot in SHOTS if shot.bundle == bundle):
                    take(browser, f"{address}#{shot.view}", shot)
                    print(FOLDER / f"{shot.name}.png")
        browser.close()


@contextmanager
def explored(bundle: str) -> Iterator[str]:
    """The address at which ``lvae explore`` shows a bundle."""
    command = [sys.executable, "-m", "lvae_torch", "explore", f"egs/pretrained/{bundle}", "--no-browser", "--port", "0"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=quiet, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


def take(browser: Browser, address: str, shot: Shot) -> None:
    page = browser.new_page(viewport={"width": WIDTH, "height": shot.height}, color_scheme=shot.scheme)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE * 1000)
    for _ in range(2):  # the page tells how long the model took, and its first answer is slow
        page.goto("about:blank")
        page.goto(address)
        page.wait_for_selector("#stage[aria-busy=false]")
    page.screenshot(path=FOLDER / f"{shot.name}.png")
    page.close()


if __name__ == "__main__":
    main()
