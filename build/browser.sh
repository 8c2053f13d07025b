#!/usr/bin/env bash
# Finds the Chromium that `make test-browser` drives, or installs Debian's where that may be done; prints its path.
#
#   build/browser.sh [--install]
#
# Exit status 3: there is none, and why. Without --install nothing is installed. LVAE_CHROMIUM names another program.
set -euo pipefail

NAMES=(chromium chromium-browser google-chrome)

find_chromium() {
  local name
  if [[ -n ${LVAE_CHROMIUM:-} ]]; then
    command -v -- "$LVAE_CHROMIUM"
    return
  fi
  for name in "${NAMES[@]}"; do
    command -v -- "$name" && return
  done
  return 1
}

none() {
  printf 'browser.sh: there is no Chromium, so the tests in the browser are skipped: %s\n' "$*" >&2
  exit 3
}

find_chromium && exit
[[ -z ${LVAE_CHROMIUM:-} ]] || none "LVAE_CHROMIUM is $LVAE_CHROMIUM, and there is no such program."
[[ ${1:-} == --install ]] || none "install it, or let build/browser.sh --install do it (Debian, as root)."
command -v apt-get >/dev/null || none "it is installed with apt-get, which is not here. Install it another way."
[[ $EUID -eq 0 ]] || none "only root can install it: sudo apt-get install --no-install-recommends chromium"
{
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium
} >&2 || none "apt-get could not install it (see above)."
find_chromium || none "apt-get installed none that is known here: ${NAMES[*]}."
