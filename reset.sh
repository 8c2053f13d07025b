#!/usr/bin/env bash
# Removes one training run and nothing else.
#
#   ./reset.sh NAME [--yes] [--runs DIR]
#
#   NAME         the run: [run] name in its .cfg
#   --yes        do not ask
#   --runs DIR   folder of all runs (default: runs, in the current folder)
#
# Shows what the run holds and asks first. Refuses whatever is not a run, or is in use.
# Exit status: 0 removed, 1 not removed (the answer was no, or a file could not be deleted), 2 refused.
set -euo pipefail
export LC_ALL=C

usage() { sed -nE '2,/^set -/{/^set -/d; s/^# ?//; p}' "${BASH_SOURCE[0]}"; }
refuse() {
  printf 'reset.sh: %s\n' "$*" >&2
  exit 2
}

parse() {
  local names=()
  runs=runs yes=''
  while (($#)); do
    case $1 in
      --yes | -y) yes=1 ;;
      --runs) (($# > 1)) || refuse "--runs needs a folder."; runs=$2; shift ;;
      --runs=*) runs=${1#*=}; [[ $runs != \~/* ]] || runs=$HOME/${runs#*/} ;; # shells leave this ~ as it is
      --help | -h) usage; exit 0 ;;
      --) shift; names+=("$@"); break ;;
      -*) refuse "unknown option $1. Usage: ./reset.sh NAME [--yes] [--runs DIR]" ;;
      *) names+=("$1") ;;
    esac
    shift
  done
  ((${#names[@]} == 1)) || refuse "give the name of one run. Usage: ./reset.sh NAME [--yes] [--runs DIR]"
  name=${names[0]}
}

# The same names as the program itself accepts: one path component that cannot leave the folder of all runs.
check_name() {
  if ! [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$ ]] || [[ $name == *..* ]]; then
    refuse "$(printf '%q' "$name") is not the name of a run: letters, digits, '.', '_' and '-' only, no '/' and no '..'."
  fi
}

check_run() {
  [[ -n $runs && -d $runs ]] || refuse "there is no folder of runs at '$runs'. Name it with --runs DIR."
  runs=$(cd -- "$runs" && pwd -P)
  run=$runs/$name
  [[ ! -L $run ]] || refuse "$run is a link, not a run; nothing was removed."
  [[ -d $run ]] || refuse "there is no run '$name' in $runs."
  [[ -f $run/hparams.cfg && ! -L $run/hparams.cfg ]] || refuse "$run is not a run: it has no hparams.cfg."
}

# Training holds run.lock for as long as it lives, and each mode of synthesis its own. We hold them until we end, so that
# nothing starts meanwhile. Open for writing, without which NFS locks nothing.
take_locks() {
  local file lock
  if ! command -v flock >/dev/null; then
    echo "reset.sh: without 'flock' there is no telling whether the run is in use." >&2
    return 0
  fi
  for file in "$run/run.lock" "$run"/synthesis/*.lock; do
    [[ -e $file ]] || continue
    [[ -f $file && ! -L $file ]] || refuse "$file is not a plain file; nothing was removed."
    exec {lock}<>"$file"
    flock --nonblock "$lock" || refuse "$run is in use by $(tr -cd '[:alnum:] ._-' <"$file"). Stop it first."
  done
}

show() {
  local checkpoints state
  checkpoints=$(find "$run/checkpoints" -maxdepth 1 -name '*.pt' 2>/dev/null | wc -l)
  state=$(sed -nE 's/^ *"(state|step)": "?([a-z0-9]+)"?,?$/\1 \2/p' "$run/status.json" 2>/dev/null | paste -sd, || true)
  printf '%s: %s, %d files, %d checkpoints%s\n' "$run" "$(du -sh -- "$run" | cut -f1)" \
    "$(find "$run" ! -type d | wc -l)" "$checkpoints" "${state:+, ${state/,/, }}"
  find "$run" -mindepth 1 -maxdepth 1 -printf '  %f\n' | sort
}

confirm() {
  [[ -z $yes ]] || return 0
  [[ -t 0 ]] || refuse "nobody is here to answer; say --yes to remove it without a question."
  local answer=''
  read -r -p "Remove this run? [y/N] " answer || true
  [[ $answer == [yY] || $answer == [yY][eE][sS] ]] || { echo "Nothing was removed."; exit 1; }
}

# hparams.cfg and the lock go last: when this is cut short, what is left is still a run, and the same command ends it.
remove() {
  find "$run" -mindepth 1 -maxdepth 1 ! -name hparams.cfg ! -name run.lock -exec rm -rf --one-file-system -- {} + || fail
  rm -rf --one-file-system -- "$run" || fail
  echo "Removed $run."
}
fail() {
  echo "reset.sh: $run could not be removed as a whole; see above." >&2
  exit 1
}

parse "$@"
check_name
check_run
take_locks
show
confirm
remove
