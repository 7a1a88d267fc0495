# The part that all batch scripts share; `mj submit` writes the #SBATCH lines before it, and
#   job            the folder of the job, or of this task of it: where this script runs
#   script         the file of this script
#   python         the interpreter
#   code           folder with the package as it was submitted
#   nodes, ranks (on each node), cpus (of each rank)
#   rank_log       what the ranks' logs are called, in srun's words
#   again          how it goes on: requeue, submit or ahead
#   excluded       nodes that the profile leaves out, in Slurm's words
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
kill_switch=$job/KILL
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then kill_switch=${job%/tasks/*}/KILL; fi
UNCLEAR='timed out|unable to contact|zero bytes' # what sbatch says if the controller gave no answer
left_out=() # a word for srun: nodes on which no rank is to start; set by choose_nodes
told=       # set when Slurm ends the job itself: cancelled, put back by hand, preempted, time limit
unheard=    # the same, until put_back_at_once has looked
failed=     # set when the ranks have ended badly: Python has to judge why

# A warning that comes before Python can take it kills a process: hold it back until then. The
# signal waits while it is blocked, over exec too; megatron_jobs.runtime.stop lets it in. Before env
# has blocked it it is not heard: rather that than a rank that dies of it.
# shellcheck disable=SC2016 # expanded by the shell that srun starts
held_back=(sh -c 'trap "" USR2
env --block-signal=USR2 true 2>/dev/null && exec env --default-signal=USR2 --block-signal=USR2 "$@"
trap - USR2
exec "$@"' rank)

run_job() {
  "${enter[@]}" --begin "$job" || return
  choose_nodes || return
  start_watch
  local ended=0
  run_ranks || ended=$?
  stop_watch
  if ((ended == 0)); then
    attended "${enter[@]}" --finish "$job"
    return
  fi
  failed=yes
  case $ended in
    3 | 4 | 5 | 75 | 124) return 1 ;; # what steps of ours say by these, a rank does not mean
    *) return "$ended" ;;
  esac
}

# Wait for a command in such a way that a signal is heard at once, not when the command has ended. At
# the time limit Slurm kills this script together with ranks that still save, KillWait seconds later.
attended() { # COMMAND
  local child status
  "$@" &
  child=$!
  while true; do
    put_back_at_once # a signal that came before `wait` does not end it
    status=0
    wait "$child" || status=$?
    if ((status <= 128)) || ! kill -0 "$child" 2>/dev/null; then return "$status"; fi
  done
}

# Over the time limit there may be no time for Python: the next start reads what happened in the log.
put_back_at_once() {
  if [[ -z $unheard || -n $failed || $again != requeue || -e $kill_switch ]]; then return 0; fi
  unheard=
  if [[ $(reason_to_end) == 'over time' ]] && put_back; then
    echo "over its time limit: back in the queue"
    sleep 60 # as in leave_it_to_slurm; but TERM has come before this, and ranks are still there
  fi
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
    --overlap --mem=0 --no-kill --kill-on-bad-exit=0 "${srun_words[@]}" "${where_python_is[@]}" \
    "${held_back[@]}" timeout --signal=KILL $((limit - 1)) "$@" || status=$?
  if ((status == 143)); then sleep 1; fi # a job that is cancelled: its steps end before it is told
  [[ -z $told ]]
}

start_watch() {
  # tasks are short work of ranks that do not wait, and there are many to ask Slurm
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then return; fi
  if ((drain_seconds)) && type sinfo scancel >/dev/null 2>&1; then watch_drain & fi
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
  attended srun --nodes="$nodes" --ntasks=$((nodes * ranks)) --ntasks-per-node="$ranks" \
    --mem=0 --kill-on-bad-exit=1 --output="$rank_log" --open-mode=append \
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

# Let Python judge. What it decided counts as soon as it is there: whom it then tells may not answer.
settle() { # STATUS
  local ended=0
  rm -f next
  (trap '' TERM && exec "${enter[@]}" "--after=$1" "$job") & # else TERM ends a Python that begins
  settling=$!
  while [[ ! -s next ]] && kill -0 "$settling" 2>/dev/null; do
    put_back_at_once
    sleep 0.1 || true
  done
  if [[ -s next ]]; then return; fi
  put_back_at_once
  wait "$settling" || ended=$?
  return $((ended ? ended : 1))
}

let_it_tell() { # ten seconds at most
  for _ in {1..100}; do
    kill -0 "${settling:-}" 2>/dev/null || return 0
    sleep 0.1 || true
  done
}

# Do what Python decided; the job's status when this script ends by itself.
act() { # VERB WORDS
  case $1 in
    again) go_on "$2" ;;
    behind) submit_again "afterok:$2," "" ;;
    *) return "$2" ;;
  esac
}

go_on() { # NODES that are to be left out
  local away found
  if [[ $again == ahead ]]; then
    echo "goes on in the next of the jobs that were submitted with it"
    return
  fi
  away=$(possible "$1")
  if [[ -n $excluded ]]; then away=$excluded${away:+,$away}; fi
  told=
  look
  case $found in
    *' TimeLimit') ;;
    COMPLETING* | CANCELLED* | PENDING* | REQUEUED*) # who did that since knows how it goes on
      echo "does not go on by itself: Slurm says $found"
      return 143
      ;;
  esac
  if [[ $again != requeue ]] || ! put_back; then
    submit_again "" "$away"
    return
  fi
  # what is left out no more is in the list of before
  if ! unharmed scontrol update "jobid=$me" "ExcNodeList=$away"; then
    echo "Slurm leaves out what it did before"
  fi
  echo "back in the queue${away:+, without $away}"
  leave_it_to_slurm
}

# Slurm ends this script here; a status of its own would be taken for the job's. Its TERM may have
# come already: that ends no sleep that begins after it, and KILL would be waited for.
leave_it_to_slurm() {
  sleep 60 &
  while [[ -z $told ]] && kill -0 "$!" 2>/dev/null; do sleep 0.1 || true; done
  if [[ -n $told ]]; then return 143; fi
}

# Of nodes to be left out, the oldest first, those that Slurm knows: one stranger, and it refuses all.
# The oldest are taken back where fewer than the job needs would remain in the partition.
possible() { # NODES
  local known never=
  if [[ -z $1 ]] || ! known=$(sinfo -ahN -o '%N %R'); then
    echo "$1"
    return
  fi
  if [[ -n $excluded ]]; then never=$(scontrol show hostnames "$excluded" | paste -sd,) || never=; fi
  awk -v wanted="$1" -v never="$never" -v partition="${SLURM_JOB_PARTITION:-}" \
    -v needed="${SLURM_JOB_NUM_NODES:-1}" '
    { known[$1]; if ($2 == partition) here[$1] }
    END {
      for (i = split(never, nodes, ","); i > 0; i--) delete here[nodes[i]]
      for (node in here) count++
      for (i = split(wanted, nodes, ","); i > 0; i--) {
        node = nodes[i]
        if (!(node in known)) why = "Slurm does not know it"
        else if (node in here && count-- <= needed) why = "too few nodes would remain"
        else { kept = node (kept == "" ? "" : ",") kept; continue }
        print node " is not left out: " why >"/dev/stderr"
      }
      print kept
    }' <<<"$known"
}

# A busy controller may do what it seems to have refused. Asked again it says that the job waits.
put_back() {
  local said found
  for _ in 1 2; do
    if said=$(unharmed scontrol requeue "$me" 2>&1); then return; fi
    echo "$said"
    if [[ $said == *'pending execution'* ]]; then return; fi
  done
  look
  case $found in
    *' TimeLimit') return 1 ;;
    COMPLETING* | PENDING* | REQUEUED*) return 0 ;;
    *) return 1 ;;
  esac
}

# A requeue ends all that runs in the job, scontrol too: killed before it has its answer it would seem
# to have been refused, and a successor would be submitted.
unharmed() { # COMMAND
  (trap '' TERM && exec "$@")
}

# The same script as a new job. It starts when this one has ended: never two work in the folder.
submit_again() { # DEPENDENCY NODES
  local waits=("--dependency=${1}afterany:$me" --kill-on-invalid-dep=yes) id=
  id=$(submit "${waits[@]}" ${2:+"--exclude=$2"} 2>refused) || id=$(submitted_after_all) || id=
  cat refused >&2
  # if the controller gave no answer it may still take the first, and both would start after this job
  if [[ -z $id && -n $2 ]] && ! grep -qiE "$UNCLEAR" refused; then
    echo "once more, without leaving out $2"
    id=$(submit "${waits[@]}") || id=$(submitted_after_all) || id=
  fi
  rm -f refused
  if [[ -z $id ]]; then
    "${enter[@]}" --stuck "$job" || true
    return 75
  fi
  echo "goes on as Slurm job $id"
  "${enter[@]}" "--successor=$id" "$job"
}

submit() { # WORDS of sbatch    with none of this job's variables; prints the id
  local name id
  if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then set -- "$@" "--array=$SLURM_ARRAY_TASK_ID"; fi
  id=$(
    for name in "${!SLURM_@}" SRUN_CPUS_PER_TASK; do
      if [[ $name != SLURM_CONF ]]; then unset "$name"; fi
    done
    PYTHONPATH=$path_before sbatch --parsable "$@" "--chdir=${script%/*}" "$script"
  ) || return
  echo "${id%%;*}"
}

# The id of a job of this name that waits for this one; sbatch may have missed the answer.
submitted_after_all() {
  local found
  if [[ ! -s refused ]] || grep -qiE "$UNCLEAR" refused; then sleep 5 || true; fi
  found=$(squeue --me -h -n "${SLURM_JOB_NAME:-}" -o '%i %E' 2>/dev/null |
    awk -v me="afterany:$me(" 'index($0, me) { sub(/[_ ].*/, ""); print }')
  if [[ -n $found ]]; then echo "${found##*$'\n'}"; else return 1; fi
}

# Sets `found` to this job's state and reason; nothing if it cannot be had. A controller that is started
# again does not answer for a while, and a TERM that comes while squeue is begun ends that.
look() {
  local status=0
  for _ in {1..60}; do
    if found=$(squeue -h -t all -j "$me" -o '%T %r' 2>/dev/null); then return; else status=$?; fi
    if ((status == 127)); then break; fi # there is none
    sleep 1 || true
  done
  found=
}

# What this script was told to end for: `over time`, the `signal` alone (the job goes on), or `other`:
# cancelled, put back, preempted. Then whoever did it knows how it goes on.
reason_to_end() {
  local found
  look
  case $found in
    *' TimeLimit') echo over time ;;
    RUNNING*) echo signal ;;
    *) echo other ;;
  esac
}

trap 'told=yes unheard=yes' TERM
trap 'kill $(jobs -p) 2>/dev/null || true; kill -KILL "${settling:-}" 2>/dev/null || true' EXIT
echo "$(date --iso-8601=seconds) Slurm job $me, restart ${SLURM_RESTART_COUNT:-0}," \
  "on $SLURM_JOB_NODELIST"
rm -f next
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
if ((status != decided)); then settle "$status" || exit "$status"; fi
read -r verb words <next
status=0
act "$verb" "$words" || status=$?
let_it_tell
exit "$status"
