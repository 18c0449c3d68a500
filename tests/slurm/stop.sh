#!/usr/bin/env bash
# Ends a Slurm that start.sh made: its jobs, then its daemons, by their process ids: tests/slurm/stop.sh FOLDER
run=$1
# shellcheck disable=SC1091
. "$run/env"
timeout 5 scancel --me 2> "$run/log/stop"
for _ in $(seq 20); do
    [ "$SECONDS" -gt 8 ] && break
    [ -z "$(timeout 2 squeue --noheader 2> "$run/log/stop")" ] && break
    sleep 0.1
done
for name in slurmd slurmctld munged; do
    pid=$(cat "$run/$name.started" 2> "$run/log/stop") || continue
    # No other process that has got this number since.
    grep -qa "$name" "/proc/$pid/cmdline" 2> "$run/log/stop" || continue
    kill -TERM "$pid"
    for _ in $(seq 50); do kill -0 "$pid" 2> "$run/log/stop" || break; sleep 0.1; done
    kill -KILL "$pid" 2> "$run/log/stop"
done
exit 0
