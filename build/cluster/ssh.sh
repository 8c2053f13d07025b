#!/usr/bin/env bash
# One run on several hosts that ssh reaches, without a scheduler.
#
#   build/cluster/ssh.sh [--nproc N] [--nodes MIN:MAX] [--port PORT] [--dir DIR] HOST [HOST...] -- CFG [ARG...]
#
#   --nproc N        processes on each host (default: one for each GPU, or one)
#   --nodes MIN:MAX  go on with MIN of them if the others are lost (default: all must be there)
#   --port PORT      where the hosts meet, on the first of them (29400 to 30399, by the folder and what follows --)
#   --dir DIR        the checkout with its .venv, at the same place on every host (default: this one)
#   CFG [ARG...]     of python -m lvae_torch.train
#
# runs/ and dataset_dumps/ lie on a file system that all hosts see. The first host keeps the meeting point: its name must
# stand for its own address there, not for 127.0.0.1. Ctrl-C, SIGTERM, the loss of this script or of its connection (once
# the host's sshd notices), and, without --nodes, the end of one host with an error stop the run with everything saved;
# the same command continues. A host that was lost is let in again when ssh.sh is started for it as before, with
# --join FIRST in front of the hosts, FIRST being the first host of the run.
set -euo pipefail

CHECKOUT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)

usage() { sed -nE '2,/^set -/{/^set -/d; s/^# ?//; p}' "${BASH_SOURCE[0]}"; }
die() {
  printf 'ssh.sh: %s\n' "$*" >&2
  exit 2
}

nproc='' nodes='' port='' dir=$CHECKOUT first='' hosts=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --nproc | --nodes | --port | --dir | --join)
      (($# > 1)) || die "$1 needs a value (see --help)."
      case $1 in --nproc) nproc=$2 ;; --nodes) nodes=$2 ;; --port) port=$2 ;; --dir) dir=$2 ;; --join) first=$2 ;; esac
      shift
      ;;
    --) shift; break ;;
    -*) die "unknown option $1 (see --help)." ;;
    *) hosts+=("$1") ;;
  esac
  shift
done
((${#hosts[@]})) || die "give at least one host, then -- and a .cfg file (see --help)."
(($#)) || die "give a .cfg file after -- (see --help)."
[[ -z $first || -n $nodes ]] || die "--join needs the --nodes of the run."
first=${first:-${hosts[0]}}
# Another run on the same hosts meets elsewhere, and whoever joins this one comes to the same place.
id=$(printf '%s\0' "$dir" "$@" | sha256sum | cut -c1-12)
port=${port:-$((29400 + 16#${id:0:4} % 1000))}

torchrun=(
  env TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # or a host that comes back is not let in again
  .venv/bin/torchrun --nnodes="${nodes:-${#hosts[@]}}" --max-restarts=3 --shutdown-timeout=120
  --rdzv-backend=c10d --rdzv-endpoint="${first##*@}:$port" --rdzv-id="lvae_torch-$id"
)
# Runs there, beside torchrun: when this end of the connection closes, `read` ends and torchrun is asked to stop.
# In one line, which every login shell takes for one word when it is quoted.
there="cd ${dir@Q} || exit 2; nproc=${nproc@Q}; \
[ -n \"\$nproc\" ] || nproc=\$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ') || nproc=1; exec 3<&0 </dev/null; \
${torchrun[*]@Q} --nproc_per_node=\"\$nproc\" -m lvae_torch.train ${*@Q} 3<&- & run=\$!; \
{ read -r _ <&3; kill -TERM \"\$run\"; } 2>/dev/null & guard=\$!; \
wait \"\$run\"; status=\$?; kill \"\$guard\" 2>/dev/null; exit \"\$status\""

line=$(mktemp -d)
trap 'rm -rf -- "$line"' EXIT
mkfifo "$line/open"
declare -A running # process -> host
for host in "${hosts[@]}"; do
  ssh -o BatchMode=yes -o ServerAliveInterval=15 "$host" "bash -c ${there@Q}" <"$line/open" &
  running[$!]=$host
done
exec 9>"$line/open" # every ssh reads from this and none writes: closing it tells all hosts
trap 'exec 9>&-' INT TERM

failure=0 # of the first that failed: it stops the others
while ((${#running[@]})); do
  status=0 ended=''
  wait -n -p ended "${!running[@]}" || status=$?
  [[ -n ${ended:-} ]] || continue # a signal ends `wait`, not what it waits for
  if ((status)); then
    printf 'ssh.sh: %s ended with status %s\n' "${running[$ended]}" "$status" >&2
    [[ -n $nodes ]] || exec 9>&- # the others would wait for it
  fi
  unset "running[$ended]"
  ((failure)) || failure=$status
done
exit "$failure"
