#!/usr/bin/env bash
# A training on the nodes that Slurm gives: one Ray node on each, the head on the first.
#   sbatch --nodes=8 slurm.sh configs/camera.toml
# All that follows the configuration goes to `hotlap train`. Wants hotlap in HOTLAP_VENV on a file
# system that all nodes see, and writes the Run there too.
#SBATCH --job-name=hotlap
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=01:00:00
#SBATCH --signal=B:TERM@60
set -euo pipefail

# shellcheck source=/dev/null
source "${HOTLAP_VENV:-$SLURM_SUBMIT_DIR/.venv}/bin/activate"
cd "$SLURM_SUBMIT_DIR"

# A token for this job alone, which only its owner can read, on the file system that all nodes see.
umask 077
folder=$(mktemp -d "$SLURM_SUBMIT_DIR/.ray-$SLURM_JOB_ID-XXXX")
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$folder/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token" RAY_USAGE_STATS_ENABLED=0
export RAY_health_check_initial_delay_ms=1000 RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=1000 RAY_health_check_failure_threshold=3
# Others may have a Ray on the same nodes: a temporary folder and a port of our own.
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID"
port=$((20000 + SLURM_JOB_ID % 20000))

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
cpus=${SLURM_CPUS_PER_TASK:-1}

# `--block` keeps Ray in its step, which ends with the job: nothing is left on the nodes.
# shellcheck disable=SC2016  # the node expands its own variables
start() { # start NODE ARGUMENTS
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$node" --overlap \
        bash -c 'mkdir -p "$RAY_TMPDIR"
                 "$@" & ray=$!
                 trap "kill $ray 2>/dev/null; wait $ray; rm -rf $RAY_TMPDIR" EXIT
                 trap exit TERM
                 wait $ray' _ \
        ray start --block --num-cpus="$cpus" --object-store-memory=1000000000 "$@" &
}
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$folder"' EXIT

start "$head" --head --node-ip-address="$address" --port="$port" --include-dashboard=false
until ray health-check --address="$address:$port" 2>/dev/null; do sleep 1; done
for node in "${nodes[@]:1}"; do start "$node" --address="$address:$port"; done
python - "$address:$port" "${#nodes[@]}" <<'PYTHON'
import sys, time
import ray
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
deadline = time.monotonic() + 120
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]) and time.monotonic() < deadline:
    time.sleep(1)
PYTHON

# Killed by the clock? Submit again with the same --out and `--resume` (docs/cluster.md).
hotlap train "$@" --workers $((${#nodes[@]} * cpus)) --address "$address:$port" --plain
