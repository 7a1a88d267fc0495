# The part that all batch scripts share; `mj submit` writes the #SBATCH lines before it, and
#   job            the folder of the job, or of this task of it: where this script runs
#   script         the file of this script
#   python         the interpreter
#   code           folder with the package as it was submitted
#   nodes, ranks (on each node), cpus (of each rank)
#   rank_log       what the ranks' logs are called, in srun's words
#   again          how it goes on: requeue, submit or ahead
#   drain_seconds  how often Slurm is asked whether a node is being drained; 0: never
#   check_nodes, try_links (0 or 1), preflight_seconds    what is tried before the ranks start
#   check_words    an array: what node_check.sh is told
#   srun_words, container_words, rank_words, control_words    arrays: what the cluster's profile adds
#     to every srun; to an srun that starts Python; before that Python; before Python on this host
# Python judges, in steps that read and write the job's folder; this script makes every call of
# Slurm, for Python may be in a container that lacks its commands.
# shellcheck shell=bash disable=SC2154

path_before=${PYTHONPATH:-}
export PYTHONPATH=$code${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export PYTHONDONTWRITEBYTECODE=1 # ranks do not, all at once; `enter --begin` does
export SRUN_CPUS_PER_TASK=$cpus # from Slurm 22.05 on srun does not take it from the job
run_python=("$python" -P -m megatron_jobs.enter)
enter=("${control_words[@]}" "${run_python[@]}")
nothing_to_do=3
decided=4
over_time=124
me=$SLURM_JOB_ID
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
left_out=() # a word for srun: nodes on which no rank is to start; set by choose_nodes
told=       # set when Slurm ends the job itself: cancelled, put back by hand, preempted, time limit

# A warning that comes before Python can take it kills a process: hold it back until then. The
# signal waits while it is blocked, over exec too; megatron_jobs.runtime.stop lets it in.
# shellcheck disable=SC2016 # expanded by the shell that srun starts
held_back=(sh -c 'env --block-signal=USR2 true 2>/dev/null && exec env --block-signal=USR2 "$@"
exec "$@"' rank)

run_job() {
  "${enter[@]}" --begin "$job" || return
  choose_nodes || return
  start_watch
  local ended=0
  run_ranks || ended=$?
  stop_watch
  if ((ended)); then return "$ended"; fi
  "${enter[@]}" --finish "$job"
}

# Try every node, and its links to two others; `left_out` are then the bad ones, and spares in excess.
# It ends in preflight_seconds even if a node hangs: the nodes are limited, and so is srun.
choose_nodes() {
  local place=$job/preflight end=$((SECONDS + preflight_seconds)) left
  if ((check_nodes == 0 && (try_links == 0 || SLURM_JOB_NUM_NODES == 1))); then return; fi
  rm -rf "$place"
  mkdir -p "$place/pairs"
  echo "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0} $(date +%s.%N)" >"$place/began"
  if ((check_nodes)); then check_every_node $((preflight_seconds / 3)) || return; fi
  date +%s.%N >"$place/ended"
  if ((try_links && SLURM_JOB_NUM_NODES > 1)); then try_every_link $((end - SECONDS - 3)) || return; fi
  left=$("${enter[@]}" "--fit=$nodes" "$job" | tail -n 1) || return
  if [[ -n $left ]]; then left_out=("--exclude=$left"); fi
}

check_every_node() { # SECONDS    the script goes by stdin: it runs where the run folder is not seen
  local place=$job/preflight where_python_is=()
  on_every_node "$1" bash -s -- "out=$place" "attempt=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
    "${check_words[@]}" <"$code/megatron_jobs/jobs/node_check.sh" >"$place/said"
}

try_every_link() { # SECONDS
  local where_python_is=("${container_words[@]}")
  on_every_node "$1" "${rank_words[@]}" "${run_python[@]}" "--pairs=$(($1 - 2))" "$job" \
    </dev/null >>logs/preflight.log 2>&1
}

# One task on each node, whatever becomes of the others: a node that fails does not leave an answer.
on_every_node() { # SECONDS COMMAND
  local limit=$1 count=$SLURM_JOB_NUM_NODES status=0
  shift
  timeout --kill-after=2 "$limit" srun --nodes="$count" --ntasks="$count" --ntasks-per-node=1 \
    --overlap --no-kill --kill-on-bad-exit=0 "${srun_words[@]}" "${where_python_is[@]}" \
    "${held_back[@]}" timeout --signal=KILL $((limit - 1)) "$@" || status=$?
  if ((status == 143)); then sleep 1; fi # a job that is cancelled: its steps end before it is told
  [[ -z $told ]]
}

start_watch() {
  if ((drain_seconds)) && type sinfo scancel >/dev/null 2>&1; then watch_drain & fi
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then return; fi # short work of ranks that do not wait
  # beside the ranks, from whom it takes nothing; srun refuses no GPUs while a variable asks for some
  env -u SLURM_GPUS -u SLURM_GPUS_PER_NODE -u SLURM_GPUS_PER_TASK -u SLURM_TRES_PER_TASK \
    srun --overlap --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task=1 \
    --mem=0 --gres=none --kill-on-bad-exit=0 --output=logs/watch.log --open-mode=append \
    "${left_out[@]}" "${srun_words[@]}" "${container_words[@]}" "${held_back[@]}" \
    "${rank_words[@]}" "${run_python[@]}" --watch "$job" >>logs/watch.log 2>&1 </dev/null &
  watching=$!
}

stop_watch() { # within ten seconds: nothing is to depend on it
  kill -USR1 "${watching:-}" 2>/dev/null || return 0 # handed on; at TERM srun would kill its tasks
  for _ in {1..100}; do
    kill -0 "$watching" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$watching" 2>/dev/null || true
}

run_ranks() {
  local binding=()
  if ((cpus > 1)); then binding=(--cpu-bind=cores); fi
  srun --nodes="$nodes" --ntasks=$((nodes * ranks)) --ntasks-per-node="$ranks" \
    --kill-on-bad-exit=1 --output="$rank_log" --open-mode=append \
    "${binding[@]}" "${left_out[@]}" "${srun_words[@]}" "${container_words[@]}" \
    "${held_back[@]}" "${rank_words[@]}" "${run_python[@]}" "$job"
}

# Until a node of the job is being drained, or taken for maintenance: then the ranks are warned.
watch_drain() {
  local states=drain found
  trap 'kill "$!" 2>/dev/null; exit' TERM # no sleep is left behind
  if [[ -z ${SLURM_JOB_RESERVATION:-} ]]; then states+=,maint; fi
  while sleep "$drain_seconds" & wait "$!"; do
    found=$(sinfo -h -N -n "$SLURM_JOB_NODELIST" -t "$states" -o %N | sort -u |
      grep -vxFf <(tr , '\n' <<<"${left_out[*]#--exclude=}") | paste -sd,) || continue
    echo "being drained: $found; the ranks are told to save and stop"
    "${enter[@]}" "--drain=$found" "$job" || true
    scancel --signal=USR2 "$me" || continue
    return
  done
}

# Do what Python decided; the job's status when this script ends by itself.
act() { # VERB WORDS
  case $1 in
    again) go_on "$2" ;;
    behind) submit_again "--dependency=afterok:$2" --kill-on-invalid-dep=yes ;;
    *) return "$2" ;;
  esac
}

go_on() { # NODES that are to be left out
  if [[ $again == ahead ]]; then
    echo "goes on in the next of the jobs that were submitted with it"
  elif [[ $again == requeue ]] && unharmed scontrol requeue "$me"; then
    if [[ -n $1 ]]; then unharmed scontrol update "jobid=$me" "ExcNodeList=$1" || true; fi
    echo "back in the queue${1:+, without $1}"
    sleep 60 # Slurm ends this script here; a status of its own would be taken for the job's
  else
    submit_again ${1:+"--exclude=$1"}
  fi
}

# A requeue ends all that runs in the job, scontrol too: killed before it has its answer it would seem
# to have been refused, and a successor would run beside this job.
unharmed() { # COMMAND
  (trap '' TERM && exec "$@")
}

# The same script as a new job, with none of this one's variables.
submit_again() { # WORDS of sbatch
  local name id
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then set -- "$@" "--array=$SLURM_ARRAY_TASK_ID"; fi
  id=$(
    for name in "${!SLURM_@}" SRUN_CPUS_PER_TASK; do
      if [[ $name != SLURM_CONF ]]; then unset "$name"; fi
    done
    PYTHONPATH=$path_before sbatch --parsable "$@" "--chdir=${script%/*}" "$script"
  ) || {
    "${enter[@]}" --stuck "$job" || true
    return 75
  }
  echo "goes on as Slurm job ${id%%;*}"
  "${enter[@]}" "--successor=${id%%;*}" "$job"
}

# What this script was told to end for: `over time`, the `signal` alone (the job goes on), or `other`:
# cancelled, put back, preempted. Then whoever did it knows how it goes on.
reason_to_end() {
  case $(squeue -h -t all -j "$me" -o '%T %r' 2>/dev/null) in
    *' TimeLimit') echo over time ;;
    RUNNING*) echo signal ;;
    *) echo other ;;
  esac
}

trap 'told=yes' TERM
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
echo "$(date --iso-8601=seconds) Slurm job $me, restart ${SLURM_RESTART_COUNT:-0}," \
  "on $SLURM_JOB_NODELIST"
status=0
run_job || status=$?
if ((status == nothing_to_do)); then
  echo "its receipt holds: nothing to do"
  exit 0
fi
if [[ -n $told ]] && ((status != 0)); then
  case $(reason_to_end) in
    'over time') status=$over_time ;;
    other) exit "$status" ;;
  esac
fi
if ((status != decided)); then
  "${enter[@]}" "--after=$status" "$job" || exit "$status"
fi
read -r verb words <next
act "$verb" "$words"
