#!/usr/bin/env bash
# Runs a command in the image, on this checkout, as you.
#
#   ./docker_run.sh [--dry-run] [--network MODE] [--mount SOURCE[:TARGET]]... [COMMAND [ARG...]]
#
#   (no command)         a shell
#   train CFG            python -m lvae_torch.train CFG
#   synthesize RUN       python -m lvae_torch.synthesize RUN
#   info, sweep, show, export   python -m lvae_torch.info ... and so on; all of lvae's commands: lvae COMMAND
#   data DATASET         python -m data_scripts DATASET; folders and files that --source, --mirror and --labels name
#                        are mounted by themselves, read-only
#   anything else        as it is, for instance: torchrun --standalone --nproc_per_node=4 -m lvae_torch.train CFG
#
#   --dry-run            print the exact command and do nothing
#   --network MODE       Docker's --network: none, host, ... (default: Docker's own)
#   --mount SOURCE[:TARGET]  a folder or file of yours, read-only, under its own path or TARGET
#
# The checkout is mounted read-only at /workspace, where it takes the place of the code in the image; the folders of
# dumps and runs are writable inside it, and so is /tmp, which is forgotten at the end. All else is read-only.
# All GPUs are used if there are any, or those that CUDA_VISIBLE_DEVICES names. SIGTERM and SIGINT reach the command,
# which has 120 s to save and end.
# Build the image once:  docker build -f build/Dockerfile -t lvae_torch .    More: docs/image.md
#
# Environment:
#   LVAE_ENGINE  docker or podman (docker, if there is one)
#   LVAE_IMAGE   image            (lvae_torch)
#   LVAE_DUMPS   folder of dumps  (dataset_dumps in the checkout)
#   LVAE_RUNS    folder of runs   (runs in the checkout)
#   LVAE_GPUS    Docker's --gpus: all, 2, device=0,1, or none  (all if nvidia-smi finds one)
#   LVAE_SHM     shared memory    (2g)
# NCCL_*, GLOO_*, TORCH_*, TORCHINDUCTOR_*, TRITON_*, PYTORCH_*, CUDA_*, CUBLAS_*, PET_*, HF_*, WANDB_*,
# OMP_NUM_THREADS, proxies and the files of certificates (SSL_CERT_FILE and the like) are handed on to the command.
set -euo pipefail

# The shell may be as old as 3.2, macOS's: no empty arrays are expanded, and nothing newer is used.
script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do # a link to this script is as good as itself
  link=$(readlink -- "$script")
  [[ $link == /* ]] || link=$(dirname -- "$script")/$link
  script=$link
done
CHECKOUT=$(cd -- "$(dirname -- "$script")" && pwd -P)
IMAGE=${LVAE_IMAGE:-lvae_torch}

usage() { sed -nE '2,/^set -/{/^set -/d; s/^# ?//; p;}' "$script"; }
die() {
  printf 'docker_run.sh: %s\n' "$*" >&2
  exit 2
}

# asked WORD...: what a command says within 3 s, for a daemon may never answer.
asked() {
  local answering watching
  "$@" 2>/dev/null &
  answering=$!
  (sleep 3 && kill -9 "$answering") >/dev/null 2>&1 &
  watching=$!
  wait "$answering" 2>/dev/null || true
  kill "$watching" 2>/dev/null || true
}

# absolute PATH: without links and dots, whether it is there or not.
absolute() {
  if [[ -d $1 ]]; then
    (cd -- "$1" && pwd -P)
  elif [[ $1 == */* ]]; then
    printf '%s/%s\n' "$(absolute "$(dirname -- "$1")")" "$(basename -- "$1")"
  else
    printf '%s/%s\n' "$(pwd -P)" "$1"
  fi
}

engine=${LVAE_ENGINE:-docker}
if [[ -z ${LVAE_ENGINE:-} ]] && ! command -v docker >/dev/null && command -v podman >/dev/null; then engine=podman; fi
is_podman=''
# Distributions have a docker that is a few lines around podman.
if [[ $engine == *podman ]] || head -c 300 -- "$(command -v "$engine" || echo /dev/null)" | grep -aq podman; then
  is_podman=1
fi
is_selinux=''
if [[ $(getenforce 2>/dev/null || true) == Enforcing ]]; then is_selinux=1; fi

options=()
# mount SOURCE TARGET [readonly]. Docker's --mount knows nothing of SELinux, --volume does.
mount() {
  if [[ $is_selinux ]]; then
    [[ $1 != *:* ]] || die "$1: cannot be mounted where SELinux is enforced, for the colon in its path."
    options+=(--volume "$1:$2:${3:+ro,}z")
  else
    [[ $1 != *,* && $2 != *,* ]] || die "$1: Docker cannot mount a folder with a comma in its path."
    options+=(--mount "type=bind,source=$1,target=$2${3:+,$3}")
  fi
}

n_sources=0
# give PATH: mounts a folder, or the one that a file lies in, and sets $given to its path inside; an address stays.
give() {
  given=$1
  [[ -e $1 ]] || return 0
  local folder name=''
  folder=$(absolute "$1")
  if [[ ! -d $1 ]]; then name=/$(basename -- "$folder") folder=$(dirname -- "$folder"); fi
  n_sources=$((n_sources + 1))
  given=/mnt/$n_sources/$(basename -- "$folder")
  mount "$folder" "$given" readonly
  given+=$name
}

dry_run='' network=''
while (($#)); do
  case $1 in
    --dry-run) dry_run=1 ;;
    --network) (($# > 1)) || die "--network needs a mode, such as none or host."; network=$2; shift ;;
    --network=*) network=${1#*=} ;;
    --mount | --mount=*)
      if [[ $1 == --mount ]]; then
        (($# > 1)) || die "--mount needs SOURCE or SOURCE:TARGET."
        shift
      fi
      wanted=${1#--mount=}
      [[ -e ${wanted%%:*} ]] || die "--mount: there is no ${wanted%%:*}."
      source=$(absolute "${wanted%%:*}") target=${wanted#*:}
      if [[ $wanted != *:* ]]; then target=$source; fi
      [[ $target == /* ]] || die "--mount: $target is no path from the root, which a target must be."
      mount "$source" "$target" readonly
      ;;
    --help | -h) usage; exit 0 ;;
    --) shift; break ;;
    -*) die "unknown option $1 (see --help)." ;;
    *) break ;;
  esac
  shift
done

case ${1:-} in
  '') inside=(bash) ;;
  train | synthesize | info | sweep | show | export) inside=(python -m "lvae_torch.$1" "${@:2}") ;;
  data)
    inside=(python -m data_scripts)
    shift
    while (($#)); do
      case $1 in
        --source | --mirror | --labels)
          inside+=("$1")
          if (($# > 1)); then
            shift
            give "$1"
            inside+=("$given")
          fi
          ;;
        --source=* | --mirror=* | --labels=*)
          wanted=${1#*=}
          [[ $wanted != \~/* ]] || wanted=$HOME/${wanted#*/} # which shells leave as it is here
          give "$wanted"
          inside+=("${1%%=*}=$given")
          ;;
        *) inside+=("$1") ;;
      esac
      shift
    done
    ;;
  *) inside=("$@") ;;
esac

dumps=$(absolute "${LVAE_DUMPS:-$CHECKOUT/dataset_dumps}")
runs=$(absolute "${LVAE_RUNS:-$CHECKOUT/runs}")
mount "$CHECKOUT" /workspace readonly
mount "$dumps" /workspace/dataset_dumps
mount "$runs" /workspace/runs

gpus=${LVAE_GPUS:-}
if [[ -z $gpus ]]; then
  # An empty list, or -1, hides all of them.
  if [[ ${CUDA_VISIBLE_DEVICES-all} == '' || ${CUDA_VISIBLE_DEVICES-all} == -1 ]]; then
    gpus=none
  elif nvidia-smi --list-gpus 2>/dev/null | grep -q '^GPU '; then
    gpus=all
  elif compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    die "this machine has an NVIDIA card, but nvidia-smi lists no GPU: mend the driver, or set LVAE_GPUS=none."
  else
    gpus=none
  fi
fi
if [[ $gpus == none ]]; then
  echo "docker_run.sh: no GPU in use; running on the CPU." >&2
elif [[ $is_podman ]]; then
  case $gpus in
    all) options+=(--device nvidia.com/gpu=all) ;;
    device=*) for gpu in $(tr , ' ' <<<"${gpus#device=}"); do options+=(--device "nvidia.com/gpu=$gpu"); done ;;
    *) die "LVAE_GPUS is $gpus; with podman use all, device=0,1 or none." ;;
  esac
  options+=(--ulimit memlock=-1 --ulimit stack=67108864)
else
  if [[ $gpus == *,* ]]; then gpus="\"$gpus\""; fi # Docker reads the value as one of CSV
  options+=(--gpus "$gpus" --ulimit memlock=-1 --ulimit stack=67108864)
fi
if [[ $gpus != none && -d /dev/infiniband ]]; then options+=(--device /dev/infiniband); fi

if [[ $network ]]; then options+=(--network "$network"); fi
# A container without a network does not know its own name, for which torchrun asks.
if [[ $network == none ]]; then options+=(--hostname lvae --add-host lvae:127.0.0.1); fi

kept=:
# keep PATH [ro]: mounts what a variable names under the same path, once.
keep() {
  if [[ $1 != /* || $kept == *":$1:"* ]]; then return 0; fi
  if [[ ! -e $1 ]]; then
    echo "docker_run.sh: $variable names $1, which is not there." >&2
    return 0
  fi
  kept+=$1:
  local how=${2:-}${is_selinux:+,z}
  options+=(--volume "$(absolute "$1"):$1${how:+:${how#,}}")
}
while read -r variable; do
  options+=(--env "$variable") # by name: values, of which some are secret, are not printed
  value=${!variable}
  case $variable in
    SSL_CERT_* | *CA_BUNDLE) keep "$value" ro ;;
    HF_* | WANDB_* | MLFLOW_*) if [[ -d $value ]]; then keep "$value"; fi ;;
  esac
done < <(compgen -e | grep -E '^((NCCL|GLOO|TORCH|TORCHINDUCTOR|TRITON|PYTORCH|CUDA|CUBLAS|PET|HF|WANDB|MLFLOW|OMP|GOMP|KMP)_.*|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|(http|https|ftp|no|all)_proxy|(HTTP|HTTPS|FTP|NO|ALL)_PROXY)$' | grep -vE '^CUDA_(HOME|PATH)$' | sort) # those are places of this machine

if [[ -t 0 && -t 1 ]]; then options+=(--tty); fi

user=$(id -u):$(id -g)
if [[ $(id -u) == 0 && ${SUDO_UID:-} ]]; then user=$SUDO_UID:${SUDO_GID:-$SUDO_UID}; fi # results belong to the person
if [[ $is_podman ]]; then
  options+=(--userns keep-id)
elif asked "$engine" info --format '{{.SecurityOptions}}' 2>/dev/null | grep -q rootless; then
  user=0:0 # which is the caller outside; anybody else inside could write nothing
fi

command=(
  "$engine" run --rm --init --interactive --stop-timeout 120
  --user "$user" --cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /tmp:exec
  --shm-size "${LVAE_SHM:-2g}" "${options[@]}" "$IMAGE" "${inside[@]}"
)

if [[ $dry_run ]]; then
  quote="'\\''" # bash 3.2 and 5 differ in what they take from a replacement that is written out
  for word in "${command[@]}"; do printf "'%s' " "${word//\'/$quote}"; done
  echo
  exit 0
fi
command -v "$engine" >/dev/null || die "there is no $engine on this machine; without it, use make setup."
if ! said=$("$engine" image inspect "$IMAGE" 2>&1 >/dev/null); then
  case $said in
    '' | *[Nn]'o such '[io]* | *'image not known'*)
      die "no image '$IMAGE' here. Build it: $engine build -f build/Dockerfile -t $IMAGE ." ;;
    *) die "$engine cannot be used: $said" ;;
  esac
fi
# Made by us, or Docker would refuse; the mount points lie in a read-only checkout, so they must exist there too.
for folder in "$dumps" "$runs" "$CHECKOUT/dataset_dumps" "$CHECKOUT/runs"; do
  if [[ ! -d $folder ]]; then
    mkdir -p -- "$folder"
    if [[ $(id -u) == 0 && ${SUDO_UID:-} ]]; then chown "$user" "$folder"; fi
  fi
done
exec "${command[@]}" # exec: signals go to Docker, which passes them on
