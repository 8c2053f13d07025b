# shellcheck shell=bash
# What the scripts that make lists of pins share; they source it. They run in the project's root, and need uv.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}
command -v uv >/dev/null || die "needs uv (pip install uv)."

# resolve PYTHON MACHINE [OPTION...]: what that interpreter needs there
resolve() {
  uv pip compile pyproject.toml --extra dev --python-version "$1" --python-platform "$2-unknown-linux-gnu" \
    --no-header --quiet "${@:3}"
}

# resolve_files LIST [OPTION...]: the same for the interpreter and machine of the tests, with the hash of every file
resolve_files() {
  resolve 3.11 x86_64 --generate-hashes --annotation-style line --output-file "$@"
}
