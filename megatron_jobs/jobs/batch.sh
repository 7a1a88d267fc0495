# The part that all batch scripts share; `mj submit` writes the #SBATCH lines before it, and
#   job        the job's folder: where this script runs (sbatch --chdir)
#   python     the interpreter
#   code       folder with the package as it was submitted
#   nodes, ranks (on each node), cpus (of each rank), max_restarts
#   srun_words an array: what the cluster's profile adds to srun
# shellcheck shell=bash disable=SC2154

export PYTHONPATH=$code${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export SRUN_CPUS_PER_TASK=$cpus # from Slurm 22.05 on srun does not take it from the job
enter=("$python" -P -m megatron_jobs.enter)
nothing_to_do=3
stopped=75
restarts=${SLURM_RESTART_COUNT:-0}

run_job() {
  "${enter[@]}" --begin "$job" || return
  srun --nodes="$nodes" --ntasks=$((nodes * ranks)) --ntasks-per-node="$ranks" \
    --kill-on-bad-exit=1 --output=logs/rank-%5t.log --open-mode=append \
    "${srun_words[@]}" "${enter[@]}" "$job" || return
  "${enter[@]}" --finish "$job"
}

echo "$(date --iso-8601=seconds) Slurm job $SLURM_JOB_ID, restart $restarts, on $SLURM_JOB_NODELIST"
status=0
run_job || status=$?

if ((status == nothing_to_do)); then
  echo "its receipt holds: nothing to do"
  status=0
elif ((status == stopped && restarts < max_restarts)); then
  echo "stopped in time: back to the queue"
  scontrol requeue "$SLURM_JOB_ID"
  sleep 60 # Slurm ends this script here; a status of its own would be taken for the job's
elif ((status == stopped)); then
  echo "stopped in time, but after $restarts restarts not put back in the queue:" \
    "submit it again to go on"
fi
exit "$status"
