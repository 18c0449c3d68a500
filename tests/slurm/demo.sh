#!/usr/bin/env bash
# A sweep of 48 cells on a Slurm of one node, while a cell's process, a whole task, the node's daemon and the controller are
# killed or restarted: every cell has to end in the results once. Needs what start.sh needs, and .NET. About two minutes.
#
#     tests/slurm/demo.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
dotnet build -c Release --nologo --verbosity quiet "$root/cli"
cmcl() { dotnet "$root/cli/bin/Release/net10.0/Cmcl.Cli.dll" "$@"; }

work=$(mktemp -d)
out=$work/out
"$here/start.sh" "$work/slurm"
trap '"$here/stop.sh" "$work/slurm"; rm -rf "$work"' EXIT
# shellcheck disable=SC1091
. "$work/slurm/env"

cat > "$work/sweep.json" <<END
{ "format": "cmcl-sweep/1",
  "blocks": [
    { "streams": ["synthetic"], "methods": ["vanilla", "dns", "ewc", "nsp"], "set": { "epochs": 1 },
      "grid": { "lr": [1e-4, 5e-4, 1e-3] }, "seeds": [0, 1, 2, 3] } ] }
END

say() { echo "$(date '+%T') $(finished) finished: $*"; }
finished() { find "$out/cells" -maxdepth 1 -name '*.json' -not -name '.*' | wc -l; }
until_finished() { while [ "$(finished)" -lt "$1" ]; do sleep 0.1; done; }

# The process of a cell that runs now.
running() {
    local pid
    while true; do
        pid=$(cat "$out"/cells/*.worker 2> "$work/noise" | grep -o '"Pid":[0-9]*' | head -n 1 | cut -d: -f2) || true
        [ -n "$pid" ] && kill -0 "$pid" 2> "$work/noise" && break
    done
    echo "$pid"
}

restart() { # a daemon, after this signal
    local pid
    pid=$(cat "$work/slurm/$1.started")
    kill "-$2" "$pid"
    while kill -0 "$pid" 2> "$work/noise"; do sleep 0.1; done
    sleep 1
    "$here/daemon.sh" "$work/slurm" "$1"
}

# Until no job of ours is in the queue, as far as the controller answers.
until_idle() { while ! queue=$(squeue --noheader 2> "$work/noise") || [ -n "$queue" ]; do sleep 0.5; done; }

mkdir -p "$out/cells"
SECONDS=0
cmcl sweep submit "$work/sweep.json" --out "$out" --engine slurm

until_finished 5
kill -KILL "$(running)"
say "killed the process of a cell"

until_finished 10
pid=$(running)
batch=$(ps -o ppid= -p "$pid") && kill -KILL $batch "$pid"
say "killed a task: its batch shell and its cell"

until_finished 16
restart slurmd KILL
say "killed the node's daemon and started it again"

until_finished 24
restart slurmctld TERM
say "restarted the controller"

until_idle
say "the queue is empty"
cmcl sweep status "$out"
cmcl sweep submit "$out" --engine slurm
until_idle
say "the queue is empty"

cmcl sweep collect "$out"
begun=$(cat "$out"/slurm/logs/*.log | grep -c ' cell ')
again=$(cat "$out"/slurm/logs/*.log | grep -c 'queued again')
twice=$(cut -d, -f4-6,10 "$out/results.csv" | sort | uniq -d | wc -l)
cells=$(tail -n +2 "$out/results.csv" | cut -d, -f10 | sort -u | wc -l)
echo "48 cells: $cells in the results, $twice figures twice; $begun times begun, $again times queued again by the batch script; $SECONDS s"
[ "$cells" -eq 48 ] && [ "$twice" -eq 0 ]
