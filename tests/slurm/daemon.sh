#!/usr/bin/env bash
# Starts one daemon of a Slurm that start.sh made, also after it was killed: tests/slurm/daemon.sh FOLDER munged|slurmctld|slurmd
# Its process id is FOLDER/NAME.started.
set -euo pipefail
run=$1 name=$2
# shellcheck disable=SC1091
. "$run/env"
# Debian's programs end in -wlm; the plain names are links made at installation.
program() { command -v "$1-wlm" || command -v "$1"; }
case $name in
munged)
    # By force: it need not like the modes of the folders above.
    arguments=(munged --foreground --force "--socket=$run/munge.sock" "--key-file=$run/munge/key" "--pid-file=$run/munge/munged.pid"
        "--log-file=$run/munge/munged.log" "--seed-file=$run/munge/seed" --num-threads=2)
    ;;
slurmctld) arguments=("$(program slurmctld)" -D -f "$SLURM_CONF") ;;
slurmd) arguments=("$(program slurmd)" -D -f "$SLURM_CONF" -d "$(program slurmstepd)") ;;
esac
setsid "${arguments[@]}" >> "$run/log/$name.out" 2>&1 < /dev/null &
echo $! > "$run/$name.started"
