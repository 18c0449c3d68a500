#!/usr/bin/env bash
# Parity and speed of training on a GPU, as one table. Needs Linux on x64 and a libtorch; of .NET nothing where there is a publish.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
bench/gpu.sh [--device cuda|cuda:N|cpu] [--out FOLDER]

Trains every form on the device and by pure functions on the CPU, tells how far apart they end, in float32 and in
float64; then times them on the device and on the CPU; last prints one table. What each part said stays in FOLDER
(default: results/gpu). --device cpu rehearses it where there is no GPU.

libtorch is looked for in CMCL_LIBTORCH, LD_LIBRARY_PATH, the torch of python3, and where it is commonly put.
The command is looked for beside this script and in output/ of the repository: cmcl-linux-x64, or cmcl-linux-x64.tar.xz,
both of which `dotnet fsi build.fsx -- publish` makes. Where there is neither, but a .NET SDK, it is made first.
END
}

say() { printf '%s\n' "$*" >&2; }

stop() {
    say "gpu.sh: $1"
    shift
    for line in "$@"; do say "        $line"; done
    exit 2
}

device=cuda
out=results/gpu

while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --device | --out)
            [ $# -gt 1 ] || stop "$1 needs a value (gpu.sh --help)."
            if [ "$1" = --device ]; then device=$2; else out=$2; fi
            shift 2
            ;;
        *) stop "there is no option '$1' (gpu.sh --help)." ;;
    esac
done

case $device in
    cuda | cuda:[0-9]* | cpu) ;;
    *) stop "--device takes cuda, cuda:N or cpu, not '$device'." ;;
esac

# The folder of libtorch: the given one, or the first of those that have what the device needs.
if [ "$device" = cpu ]; then wanted=libtorch_cpu.so; else wanted=libtorch_cuda.so; fi
looked=()

has_libtorch() {
    looked+=("$1")
    [ -f "$1/$wanted" ]
}

find_libtorch() {
    local folder folders

    if [ -n "${CMCL_LIBTORCH:-}" ]; then
        for folder in "$CMCL_LIBTORCH" "$CMCL_LIBTORCH/lib"; do
            if has_libtorch "$folder"; then libtorch=$folder; return; fi
        done
        stop "CMCL_LIBTORCH names '$CMCL_LIBTORCH', which has no $wanted."
    fi

    IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
    folder=$(python3 -c 'import torch, os; print(os.path.join(os.path.dirname(torch.__file__), "lib"))' 2>/dev/null || true)
    folders+=("$folder" /usr/local/libtorch/lib /opt/libtorch/lib "${HOME:-}/libtorch/lib" "$here/libtorch/lib" "$PWD/libtorch/lib")

    for folder in "${folders[@]}"; do
        if [ -n "$folder" ] && has_libtorch "$folder"; then libtorch=$folder; return; fi
    done

    stop "no libtorch for --device $device ($wanted) found. Set CMCL_LIBTORCH to the folder of a libtorch 2.10: Python's torch/lib," \
        "or lib of an unpacked libtorch. Looked in the torch of python3, if there is one, and in:" "${looked[@]}"
}

# libtorch's own word on its version, in pip's layout or in the archive's.
libtorch_version() {
    if [ -f "$libtorch/../version.py" ]; then
        sed -n "s/^__version__ = '\(.*\)'/\1/p" "$libtorch/../version.py"
    elif [ -f "$libtorch/../build-version" ]; then
        cat "$libtorch/../build-version"
    else
        echo "of unknown version"
    fi
}

find_cmcl() {
    local place

    for place in "$here" "$here/cmcl-linux-x64" "$here/../output/cmcl-linux-x64"; do
        if [ -f "$place/cmcl" ] && [ -f "$place/Cmcl.dll" ]; then cmcl=$place/cmcl; return; fi
    done

    for place in "$here" "$here/../output"; do
        if [ -f "$place/cmcl-linux-x64.tar.xz" ]; then
            tar -C "$temporary" -xJf "$place/cmcl-linux-x64.tar.xz" || stop "cmcl-linux-x64.tar.xz cannot be unpacked (is xz there?)."
            cmcl=$temporary/cmcl-linux-x64/cmcl
            return
        fi
    done

    if [ -f "$here/../build.fsx" ] && command -v dotnet >/dev/null; then
        (cd "$here/.." && dotnet fsi build.fsx -- publish) || stop "the publish failed."
        cmcl=$here/../output/cmcl-linux-x64/cmcl
        return
    fi

    stop "no cmcl found: put cmcl-linux-x64 or cmcl-linux-x64.tar.xz beside this script." \
        "Both come from 'dotnet fsi build.fsx -- publish', on any machine with a .NET SDK."
}

find_libtorch

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
find_cmcl
export CMCL_LIBTORCH=$libtorch

version=$("$cmcl" --version) || stop "the command does not start; see above (.NET needs libssl of OpenSSL 1.1 or 3)."

card=none
if [ "$device" != cpu ] && command -v nvidia-smi >/dev/null; then
    card=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "nvidia-smi failed")
fi

about() {
    echo "GPU (name, driver, memory): $card"
    echo "CPU: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
    echo "libtorch: $(libtorch_version) in $libtorch"
    echo "command: $version"
}

about

# The shortest run there is tells what is wrong with the device, if something is, before anything takes time.
"$cmcl" run --stream synthetic --methods zero-shot --seeds 0 --device "$device" --out "$temporary/probe" --quiet ||
    stop "nothing runs with --device $device; see above."

mkdir -p "$out"
code=0
"$cmcl" bench --parity --device "$device" --dtype float32,float64 --out "$out/parity" --force | tee "$out/parity.txt" || code=1
[ -f "$out/parity/parity.csv" ] || stop "the forms could not be compared; see above."

# Of the CPU's thread counts each form gets the one that it is fastest with; beside a GPU one thread is enough.
if [ "$device" = cpu ]; then
    "$cmcl" bench --quick --device cpu --out "$out/cpu" --force | tee "$out/cpu.txt"
else
    "$cmcl" bench --quick --device "$device" --threads 1 --out "$out/gpu" --force | tee "$out/gpu.txt"
    "$cmcl" bench --quick --device cpu --out "$out/cpu" --force | tee "$out/cpu.txt"
fi

# One table: a line for each form and rank that was timed, then the forms that were only compared.
table() {
    awk -v device="$device" '
        function shown(x) { return x == "" ? "–" : sprintf(x + 0 < 10 ? "%.2f" : "%.1f", x) }
        function line(form, rank,    at) {
            at = form " " rank
            printf "| %s | %s | %s | %s |", form, rank == "" ? "–" : rank, apart[form " float32"], apart[form " float64"]
            if (device != "cpu") printf " %s | %s |", shown(time["gpu " at] ""), shown(over["gpu " at] "")
            printf " %s | %s |", shown(time["cpu " at] ""), shown(over["cpu " at] "")
            if (device != "cpu") printf " %s |", time["gpu " at] ? shown(time["cpu " at] / time["gpu " at]) : "–"
            print ""
        }
        FNR == 1 {
            part = FILENAME ~ /parity.csv$/ ? "parity" : FILENAME ~ /gpu.bench.csv$/ ? "gpu" : "cpu"
            split("", column)
            for (i = 1; i <= NF; i++) column[$i] = i
            next
        }
        { form = $column["form"] }
        part == "parity" {
            apart[form " " $column["dtype"]] = sprintf("%.1e", $column["difference"]) ($column["holds"] == 1 ? "" : " ✗")
            if (!(form in forms)) { forms[form] = 1; order[++compared] = form }
        }
        part != "parity" {
            at = form " " $column["rank"]; ms = 1000 * $column["median"]
            if (!(at in places)) { places[at] = 1; timed[form] = 1; rows[++count] = at }
            at = part " " at
            if (!(at in time) || ms < time[at]) { time[at] = ms; over[at] = $column["over_none"] }
        }
        END {
            head = "| form | rank | float32 differs by | float64 differs by |"; rule = "|---|---|---|---|"
            if (device != "cpu") { head = head " GPU ms | over none |"; rule = rule "---|---|" }
            head = head " CPU ms | over none |"; rule = rule "---|---|"
            if (device != "cpu") { head = head " CPU / GPU |"; rule = rule "---|" }
            print head; print rule
            for (i = 1; i <= count; i++) { split(rows[i], place, " "); line(place[1], place[2]) }
            for (i = 1; i <= compared; i++) if (!(order[i] in timed)) line(order[i], "")
        }' FS=, "$out/parity/parity.csv" "$@"
}

tables=("$out/cpu/bench.csv")
[ "$device" = cpu ] || tables=("$out/gpu/bench.csv" "${tables[@]}")

{
    about
    echo
    echo "Weights after 40 updates on $device against the pure functions on the CPU (d = 256); ms an iteration at d = 1024,"
    echo "a batch of 64, float32."
    echo
    table "${tables[@]}"
} | tee "$out/gpu.md"

say "The table: $out/gpu.md"
if grep -q ✗ "$out/gpu.md"; then code=1; fi
[ "$code" = 0 ] || say "gpu.sh: some forms are too far apart (✗)."
exit "$code"
