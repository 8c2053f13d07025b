#!/usr/bin/env bash
# The reference's command of this name: download_and_preprocess.sh NAME [OPTIONS]. Ends with a status other than 0 if
# anything is missing or damaged, and says what.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" -m data_scripts "$@"
