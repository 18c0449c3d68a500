#!/usr/bin/env bash
# Moments of the rows of many shards on Slurm: an array with a task for each shard, and a job after it that merges what they made
# (docs/scale.md). A shard is a file of features, for their second moment, or a pair of files, for the moments that `cmcl solve` takes.
# Run where sbatch is at hand:
#
#     scripts/slurm-moments.sh M.safetensors SHARD.npy... [-- SBATCH OPTIONS, such as --partition=cpu --mem=2G]
#     scripts/slurm-moments.sh M.safetensors vision=A.npy,text=B.npy... [-- SBATCH OPTIONS]
#
# CMCL is how cmcl is started (default: cmcl). PAIR_OPTIONS are those of cmcl moments pair, such as "--features relu:512 --seed 0".
# Shards that are done are not done again: run it once more after a failure.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$(realpath -m "$1"); shift
kind=accumulate options=
parts=$out.parts
mkdir -p "$parts"
: > "$parts/shards"
count=0
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    # A line has the words of a task, one a tab.
    case $1 in
        *=*,*=*)
            kind=pair options=${PAIR_OPTIONS:-} a=${1%%,*} b=${1#*,}
            printf '%s=%s\t%s=%s\n' "${a%%=*}" "$(realpath "${a#*=}")" "${b%%=*}" "$(realpath "${b#*=}")" ;;
        *) printf '%s\n' "$(realpath "$1")" ;;
    esac >> "$parts/shards"
    count=$((count + 1)); shift
done
[ "${1:-}" != -- ] || shift

cat > "$parts/accumulate.sbatch" << EOF
#!/bin/bash
#SBATCH --job-name=cmcl-moments --array=0-$((count - 1)) --requeue --open-mode=append
#SBATCH --output="$parts/%a.log"
part="$parts/\$SLURM_ARRAY_TASK_ID.safetensors"
IFS=\$'\t' read -r -a files < <(sed -n "\$((SLURM_ARRAY_TASK_ID + 1))p" "$parts/shards")
[ -e "\$part" ] || ${CMCL:-cmcl} moments $kind "\${files[@]}" -o "\$part" --threads "\${SLURM_CPUS_PER_TASK:-1}" $options
EOF

cat > "$parts/merge.sbatch" << EOF
#!/bin/bash
#SBATCH --job-name=cmcl-moments-merge --open-mode=append
#SBATCH --output="$parts/merge.log"
for i in \$(seq 0 $((count - 1))); do set -- "\$@" "$parts/\$i.safetensors"; done
exec ${CMCL:-cmcl} moments merge "\$@" -o "$out" --force
EOF

job=$(sbatch --parsable "$@" "$parts/accumulate.sbatch")
merge=$(sbatch --parsable --dependency="afterany:${job%%;*}" "$@" "$parts/merge.sbatch")
echo "$count shards submitted as job ${job%%;*}; job ${merge%%;*} merges them into $out (logs: $parts)"
