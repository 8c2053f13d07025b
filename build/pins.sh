#!/usr/bin/env bash
# Makes build/requirements.txt again from the ranges in pyproject.toml: exact versions, with the hash of every file.
#
#   build/pins.sh [--upgrade] [--upgrade-package NAME[==VERSION]]...
#
# Versions that still fit stay; the options, which are uv's, take newer ones. Needs uv and a package registry.
# shellcheck source=build/resolving.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/resolving.sh"

pins=build/requirements.txt
new=$(mktemp)
trap 'rm -f -- "$new"' EXIT

cp -- "$pins" "$new"
resolve_files "$new" "$@"

# One list serves all: no other interpreter or machine may need a package or version that is not in it.
for python in 3.11 3.12 3.13; do
  for machine in x86_64 aarch64; do
    missing=$(resolve "$python" "$machine" --no-annotate --constraint "$new" | grep -vxFf <(sed 's/ .*//' "$new") || true)
    [[ -z $missing ]] || die "Python $python on $machine needs more: ${missing//$'\n'/, }"
  done
done

# What has no wheels for aarch64 is left out there, as pyproject.toml says; uv forgets it where it resolves for one machine.
sed -i "s/^constriction==[^ ;]*/& ; platform_machine == 'x86_64'/" "$new"

{
  cat <<'HEADER'
# Exact versions of everything, runtime and development, with the hashes of their files: what is tested.
# Made by `make pins` from the ranges in pyproject.toml; they serve Python 3.11 to 3.13 on Linux, x86_64 and aarch64.
# torch and torchvision are one pair and come from one place; torch brings its CUDA libraries and runs without a GPU too.
HEADER
  cat -- "$new"
} >"$pins"
echo "$(grep -c '==' "$pins") packages in $pins. What changed: git diff $pins. Their licences: make licences."
