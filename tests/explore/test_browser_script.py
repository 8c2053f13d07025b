"""The script that looks for a browser, and installs one where it can."""

import subprocess
from pathlib import Path


def test_a_missing_browser_is_told(repository: Path, tmp_path: Path) -> None:
    script = ["/bin/bash", str(repository / "build" / "browser.sh")]
    result = subprocess.run(script, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stdout) == (3, "") and "there is no Chromium" in result.stderr
