#!/usr/bin/env bash
# Makes build/requirements-cu126.txt: the versions of build/requirements.txt, with the same PyTorch built for an older
# CUDA, for drivers 525 to 579 and GPUs before Turing; with the hash of every file, for Linux on x86_64.
#
#   build/pins_older_cuda.sh [cu126]
#
# Needs uv, a package registry, and PyTorch's own index, from which uv takes PyTorch alone. See docs/image.md.
# shellcheck source=build/resolving.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/resolving.sh"

cuda=${1:-cu126}
pins=build/requirements-$cuda.txt
new=$(mktemp -d)
trap 'rm -rf -- "$new"' EXIT

# All versions but those of CUDA's libraries and of triton, which PyTorch names itself.
grep -oE '^[A-Za-z0-9._-]+==[^ ]+' build/requirements.txt | grep -vE '^(triton|nvidia-|cuda-)' >"$new/versions"
resolve_files "$new/pins" --torch-backend "$cuda" --constraint "$new/versions" ||
  die "no pins for $cuda: see what uv says above; $pins is as it was."
grep -qE "^torch==[^ ]+\+$cuda " "$new/pins" || die "what uv found is no PyTorch for $cuda; $pins is as it was."

{
  cat <<HEADER
# The versions of build/requirements.txt with PyTorch for $cuda, and the hashes of their files: Linux, x86_64.
# Made by \`build/pins_older_cuda.sh $cuda\`. docs/image.md says for which drivers and GPUs, and how to install them.
HEADER
  cat -- "$new/pins"
} >"$pins"
echo "$(grep -c '==' "$pins") packages in $pins."
