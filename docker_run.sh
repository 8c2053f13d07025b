#!/usr/bin/env bash
# Runs a command in the image, on this checkout, as you.
#
#   ./docker_run.sh [--dry-run] [--network MODE] [COMMAND [ARG...]]
#
#   (no command)         a shell
#   train CFG            python -m lvae_torch.train CFG
#   synthesize RUN       python -m lvae_torch.synthesize RUN
#   info CFG, demo       python -m lvae_torch.info CFG, python -m lvae_torch.demo
#   data DATASET         python -m data_scripts DATASET
#   anything else        as it is, for instance: torchrun --standalone --nproc_per_node=4 -m lvae_torch.train CFG
#
#   --dry-run            print the exact command and do nothing
#   --network MODE       Docker's --network: none, host, ... (default: Docker's own)
#
# The checkout is mounted read-only at /workspace, where it takes the place of the code in the image; the folders of
# dumps and runs are writable inside it, and so is /tmp, which is forgotten at the end. All else is read-only.
# All GPUs are used if there are any. SIGTERM and SIGINT reach the command, which has 120 s to save and end.
# Build the image once:  docker build -f build/Dockerfile -t lvae_torch .
#
# Environment:
#   LVAE_IMAGE   image            (lvae_torch)
#   LVAE_DUMPS   folder of dumps  (dataset_dumps in the checkout)
#   LVAE_RUNS    folder of runs   (runs in the checkout)
#   LVAE_GPUS    Docker's --gpus: all, 2, device=0,1, or none  (all if nvidia-smi finds one)
#   LVAE_SHM     shared memory    (2g)
# NCCL_*, GLOO_*, TORCH_*, PET_* and OMP_NUM_THREADS are handed on to the command.
set -euo pipefail

CHECKOUT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
IMAGE=${LVAE_IMAGE:-lvae_torch}

usage() { sed -nE '2,/^set -/{/^set -/d; s/^# ?//; p}' "${BASH_SOURCE[0]}"; }
die() {
  printf 'docker_run.sh: %s\n' "$*" >&2
  exit 2
}

dry_run='' network=()
while (($#)); do
  case $1 in
    --dry-run) dry_run=1 ;;
    --network) (($# > 1)) || die "--network needs a mode, such as none or host."; network=(--network "$2"); shift ;;
    --network=*) network=(--network "${1#*=}") ;;
    --help | -h) usage; exit 0 ;;
    --) shift; break ;;
    -*) die "unknown option $1 (see --help)." ;;
    *) break ;;
  esac
  shift
done

case ${1:-} in
  '') inside=(bash) ;;
  train | synthesize | info | demo) inside=(python -m "lvae_torch.$1" "${@:2}") ;;
  data) inside=(python -m data_scripts "${@:2}") ;;
  *) inside=("$@") ;;
esac

# mount SOURCE TARGET [OPTION]: sets $mounted. A comma would end the value inside --mount.
mount() {
  [[ $1 != *,* ]] || die "$1: Docker cannot mount a folder with a comma in its path."
  mounted+=(--mount "type=bind,source=$1,target=$2${3:+,$3}")
}
dumps=$(realpath -m -- "${LVAE_DUMPS:-$CHECKOUT/dataset_dumps}")
runs=$(realpath -m -- "${LVAE_RUNS:-$CHECKOUT/runs}")
mounted=()
mount "$CHECKOUT" /workspace readonly
mount "$dumps" /workspace/dataset_dumps
mount "$runs" /workspace/runs

gpus=${LVAE_GPUS:-}
if [[ -z $gpus ]]; then
  if nvidia-smi --list-gpus 2>/dev/null | grep -q '^GPU '; then gpus=all; else gpus=none; fi
fi
if [[ $gpus == *,* ]]; then gpus="\"$gpus\""; fi # Docker reads the value as one of CSV
accelerator=()
if [[ $gpus == none ]]; then
  echo "docker_run.sh: no GPU in use; running on the CPU." >&2
else
  accelerator=(--gpus "$gpus" --ulimit memlock=-1 --ulimit stack=67108864)
fi

# A container without a network does not know its own name, for which torchrun asks.
name=()
if [[ ${network[*]} == "--network none" ]]; then name=(--hostname lvae --add-host lvae:127.0.0.1); fi

handed_on=()
while read -r variable; do handed_on+=(--env "$variable"); done \
  < <(compgen -e | grep -E '^((NCCL|GLOO|TORCH|PET)_|OMP_NUM_THREADS$)' | sort)

terminal=()
if [[ -t 0 && -t 1 ]]; then terminal=(--tty); fi

command=(
  docker run --rm --init --interactive "${terminal[@]}" --stop-timeout 120
  --user "$(id -u):$(id -g)" --cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /tmp:exec
  --shm-size "${LVAE_SHM:-2g}" "${accelerator[@]}" "${network[@]}" "${name[@]}" "${handed_on[@]}" "${mounted[@]}"
  "$IMAGE" "${inside[@]}"
)

if [[ $dry_run ]]; then
  echo "${command[*]@Q}"
  exit 0
fi
command -v docker >/dev/null || die "there is no docker on this machine; without it, use make setup."
docker image inspect "$IMAGE" >/dev/null 2>&1 \
  || die "no image '$IMAGE' here. Build it: docker build -f build/Dockerfile -t $IMAGE ."
# Made by us, or Docker would refuse; the mount points lie in a read-only checkout, so they must exist there too.
mkdir -p -- "$dumps" "$runs" "$CHECKOUT/dataset_dumps" "$CHECKOUT/runs"
exec "${command[@]}" # exec: signals go to Docker, which passes them on
