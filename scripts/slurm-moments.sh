#!/usr/bin/env bash
# The second moment of the rows of many shards on Slurm: an array with a task for each shard, and a job after it that merges what they
# made (docs/scale.md). Run where sbatch is at hand:
#
#     scripts/slurm-moments.sh M.safetensors SHARD.npy... [-- SBATCH OPTIONS, such as --partition=cpu --mem=2G]
#
# CMCL is how cmcl is started (default: cmcl). Shards that are done are not done again: run it once more after a failure.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$(realpath -m "$1"); shift
shards=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do shards+=("$(realpath "$1")"); shift; done
[ "${1:-}" != -- ] || shift
parts=$out.parts
mkdir -p "$parts"
printf '%s\n' "${shards[@]}" > "$parts/shards"

cat > "$parts/accumulate.sbatch" << EOF
#!/bin/bash
#SBATCH --job-name=cmcl-moments --array=0-$((${#shards[@]} - 1)) --requeue --open-mode=append
#SBATCH --output="$parts/%a.log"
part="$parts/\$SLURM_ARRAY_TASK_ID.safetensors"
[ -e "\$part" ] || ${CMCL:-cmcl} moments accumulate "\$(sed -n "\$((SLURM_ARRAY_TASK_ID + 1))p" "$parts/shards")" -o "\$part" --threads "\${SLURM_CPUS_PER_TASK:-1}"
EOF

cat > "$parts/merge.sbatch" << EOF
#!/bin/bash
#SBATCH --job-name=cmcl-moments-merge --open-mode=append
#SBATCH --output="$parts/merge.log"
for i in \$(seq 0 $((${#shards[@]} - 1))); do set -- "\$@" "$parts/\$i.safetensors"; done
exec ${CMCL:-cmcl} moments merge "\$@" -o "$out" --force
EOF

job=$(sbatch --parsable "$@" "$parts/accumulate.sbatch")
merge=$(sbatch --parsable --dependency="afterany:${job%%;*}" "$@" "$parts/merge.sbatch")
echo "${#shards[@]} shards submitted as job ${job%%;*}; job ${merge%%;*} merges them into $out (logs: $parts)"
