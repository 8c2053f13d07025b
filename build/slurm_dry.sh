#!/usr/bin/env bash
# Ask a real SLURM whether it would take build/cluster/slurm.sbatch: `sbatch --test-only` against a slurmctld of two
# nodes with four GPUs each, which is started here in a folder of its own, and ended and removed again. No job runs.
#
#   apt-get install --no-install-recommends slurmctld slurm-client munge && build/slurm_dry.sh [OPTION of sbatch ...]
#
# Run it as root. Exit status 3: SLURM is not installed.
set -euo pipefail
cd "$(dirname "$0")/.."
for program in slurmctld sbatch munged; do
  command -v "$program" >/dev/null || { echo "slurm_dry.sh: $program is missing; see the head of this file." >&2; exit 3; }
done
folder=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; wait; rm -rf "$folder"' EXIT

(umask 077 && head -c 1024 /dev/urandom >"$folder/key")
munged --foreground --force --key-file="$folder/key" --socket="$folder/munge" --pid-file="$folder/munge.pid" \
  --seed-file="$folder/seed" 2>>"$folder/said" &
pids+=($!)

host=$(hostname -s)
cat >"$folder/slurm.conf" <<CONF
ClusterName=dry
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURM_DRY_PORT:-26817}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge
StateSaveLocation=$folder
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
# Of the cloud: the nodes need not be there.
NodeName=node[0-1] CPUs=32 RealMemory=64000 Gres=gpu:4 State=CLOUD
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf
slurmctld -D -f "$SLURM_CONF" 2>>"$folder/said" &
pids+=($!)
for _ in {1..100}; do
  scontrol ping >/dev/null 2>&1 && break
  sleep 0.1
done
scontrol ping >/dev/null 2>&1 || { cat "$folder/said" >&2; exit 1; }
sbatch --version
sbatch --test-only "$@" build/cluster/slurm.sbatch egs/spatial_lvae/cifar10_15.cfg
