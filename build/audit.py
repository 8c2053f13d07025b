"""Ask the package registry for known vulnerabilities of the exact versions in ``build/requirements.txt``.

``python -m build.audit``. Exit status: 0 none known, or nobody answered (and that is said), 1 some are known.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

PINS = Path(__file__).with_name("requirements.txt")
TOOL = Path(sys.prefix) / "audit"  # a place of its own: the auditor is no part of what is audited


def main() -> int:
    """Install pip-audit beside the virtual environment, run it, and tell what it found."""
    if not (TOOL / "bin" / "pip-audit").exists():
        venv.create(TOOL, with_pip=True, clear=True)
        pip = [str(TOOL / "bin" / "python"), "-m", "pip", "install", "--quiet", "pip-audit>=2.9,<3"]
        if subprocess.run(pip, check=False).returncode != 0:
            return tell(*verdict(None))
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    command = [str(TOOL / "bin" / "pip-audit"), "--requirement", str(PINS), *options]
    answer = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout
    return tell(*verdict(json.loads(answer) if answer.startswith("{") else None))


def verdict(report: dict[str, Any] | None) -> tuple[int, list[str]]:
    """Exit status and what to say of pip-audit's report; None if there is none."""
    packages = [] if report is None else report["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        return 0, ["NOT AUDITED: no registry answered. Nothing is known; repeat it where one does."]
    lines = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in asked
        for vulnerability in package["vulns"]
    ]
    status = 1 if lines else 0
    lines.append(f"{len(lines)} known vulnerabilities in {len(asked)} packages.")
    if silent := [package["name"] for package in packages if package not in asked]:
        lines.append(f"NOT AUDITED, for the registry does not know them: {', '.join(silent)}.")
    return status, lines


def tell(status: int, lines: list[str]) -> int:
    """Print ``lines``; ``status`` is given back."""
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
