#!/bin/bash
# Is this node fit for a job? Takes NAME=VALUE words and tells in one JSON object; exit status 1 when it is not:
#   {"node", "attempt", "time", "verdict": "good" | "bad", "faults": [{"check", "cause"}], "facts": {...}}
# Plain bash: no Python, no container is needed.
#
#   out=FOLDER          where to leave NODE.json, whole or not at all; none, or not to be written to: it is printed
#   node=NAME           what Slurm calls this node; attempt=TEXT is handed through
#   gpus=N gpu_celsius=C        GPUs of the job here; each must be cooler than that
#   memory_gb=G                 what the job asked for here; 0: nothing to compare with
#   scratch=FOLDER disk_gb=G    folder local to the node, and what must be free there
#   fabric=NAME                 which network joins the nodes; see jobs/fabric.py
#   line=SHELL                  a check of the site's own; may be given again and again
#   seconds=S                   a command that takes longer has failed
#   root=FOLDER                 where /proc, /sys and /dev are looked for (for tests)
set -uo pipefail
export LC_ALL=C

declare -A asked=([gpus]=0 [gpu_celsius]=90 [memory_gb]=0 [disk_gb]=0 [seconds]=4)
site_lines=()
for word in "$@"; do
  case $word in
    line=*) site_lines+=("${word#line=}") ;;
    out=* | node=* | attempt=* | gpus=* | gpu_celsius=* | memory_gb=* | scratch=* | disk_gb=* | fabric=* | seconds=* | root=*)
      asked[${word%%=*}]=${word#*=} ;;
    *) echo "node_check: $word: no such word; see the top of $0" >&2 && exit 2 ;;
  esac
done
root=${asked[root]:-}
node=${asked[node]:-${SLURMD_NODENAME:-$(uname -n)}}
faults=()
facts=()

# The least memory that NCCL takes in /dev/shm for each GPU, and the rate in Gb/s below which a port has no full link:
# half of the fabric's name, since HDR100 and NDR200 are cables like others.
shm_mb_of_gpu=32
declare -A least_rate=([infiniband-hdr]=100 [infiniband-ndr]=200 [roce]=1)
# Errors of the GPU, of its memory or its links; others are mostly made by programmes. Source: NVIDIA's Xid catalogue.
xids_of_faults='48|62|64|74|79|92|95|119|120|140'

text() { # VALUE    as a string of JSON; a control sign becomes a space
  local value=${1//[[:cntrl:]]/ }
  value=${value//\\/\\\\}
  printf '"%s"' "${value//\"/\\\"}"
}
fault() { faults+=("{\"check\": $(text "$1"), \"cause\": $(text "$2")}"); } # CHECK CAUSE
fact() { facts+=("$(text "$1"): $(text "$2")"); }                           # NAME VALUE
number() { facts+=("$(text "$1"): $2"); }                                   # NAME NUMBER
is_number() { [[ $1 =~ ^[0-9]+(\.[0-9]+)?$ ]]; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; } # A B    fractions too
gib() { awk -v kib="$1" 'BEGIN { printf "%.2f", kib / 1048576 }'; }
limited() { timeout --kill-after=1 "${asked[seconds]}" "$@"; }

# ---- memory and folders
check_memory() {
  local name value total=0 free=0
  while read -r name value _; do
    case $name in MemTotal:) total=$value ;; MemAvailable:) free=$value ;; esac
  done <"$root/proc/meminfo"
  number memory_gb "$(gib "$total")"
  number memory_free_gb "$(gib "$free")"
  # nine tenths: a job may ask for all that a node has, and the system needs some of it
  if less "$(gib "$free")" "$(awk -v g="${asked[memory_gb]}" 'BEGIN { print 0.9 * g }')"; then
    fault memory "$(gib "$free") GiB of memory are free, the job asked for ${asked[memory_gb]} GiB"
  fi
}

writes() { # FOLDER    whether a file can be written there
  local probe
  probe=$1/.node-check-$node-$$
  { printf '%4096s' x >"$probe" && [[ $(wc -c <"$probe") -eq 4096 ]]; } 2>/dev/null
  local status=$?
  rm -f "$probe" 2>/dev/null
  return $status
}

check_scratch() {
  local scratch=${asked[scratch]:-} free inodes
  if [[ -z $scratch ]]; then scratch=$(default_scratch); fi
  mkdir -p "$scratch" 2>/dev/null
  fact scratch "$scratch"
  free=$(limited df -Pk "$scratch" 2>/dev/null | awk 'NR == 2 { print $4 }')
  if [[ -z $free ]]; then
    fault scratch "$scratch: is not there and cannot be made, or its file system does not answer"
    return
  fi
  inodes=$(limited df -Pi "$scratch" 2>/dev/null | awk 'NR == 2 && $2 > 0 { print $4 }')
  number scratch_free_gb "$(gib "$free")"
  if less "$(gib "$free")" "${asked[disk_gb]}"; then
    fault scratch "$scratch: $(gib "$free") GiB are free, ${asked[disk_gb]} GiB are wanted"
  elif [[ -n $inodes && $inodes -lt 1000 ]]; then
    fault scratch "$scratch: room for $inodes more files, 1000 are wanted"
  elif ! writes "$scratch"; then
    fault scratch "$scratch: cannot be written to"
  fi
}

default_scratch() { if [[ -w $root/dev/shm ]]; then echo "$root/dev/shm"; else echo "$root/tmp"; fi; }

check_run_folder() {
  if [[ -n ${asked[out]:-} ]] && ! writes "${asked[out]}"; then
    fault "run folder" "${asked[out]}: cannot be written to from here (mounted? quota?)"
  fi
}

check_shared_memory() {
  local free wanted=$((asked[gpus] * shm_mb_of_gpu * 1024))
  free=$(limited df -Pk "$root/dev/shm" 2>/dev/null | awk 'NR == 2 { print $4 }')
  if [[ -z $free ]]; then
    fact dev_shm absent
    return
  fi
  number dev_shm_free_mb "$((free / 1024))"
  if ((free < wanted)); then
    fault shm "/dev/shm: $((free / 1024)) MiB are free, NCCL needs $((wanted / 1024)) for ${asked[gpus]} GPUs"
  fi
}

# ---- GPUs
check_gpus() {
  if ((asked[gpus] == 0)); then return; fi
  if ! command -v nvidia-smi >/dev/null; then
    fact gpus "not looked at: there is no nvidia-smi here"
    return
  fi
  local state rows apps reasons
  exec {state}< <(ask_gpus --query-gpu=index,temperature.gpu,ecc.errors.uncorrected.volatile.total,name)
  exec {rows}< <(ask_gpus --query-remapped-rows=gpu_bus_id,remapped_rows.pending,remapped_rows.failure)
  exec {apps}< <(ask_gpus --query-compute-apps=pid,used_memory,process_name)
  exec {reasons}< <(ask_gpus "--query-gpu=index,$(printf 'clocks_throttle_reasons.%s,' "${slowdowns[@]}")")
  judge_gpus <&"$state"
  judge_rows <&"$rows"
  judge_slowdowns <&"$reasons"
  judge_processes <&"$apps"
  judge_kernel_log
}
slowdowns=(hw_slowdown hw_thermal_slowdown hw_power_brake_slowdown sw_thermal_slowdown)
gpus_found=0

ask_gpus() { # QUERY    one line for each GPU of this job: Slurm may show all of the node's; its last word is `end`
  local ours=()
  if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then ours=(--id="$CUDA_VISIBLE_DEVICES"); fi
  limited nvidia-smi "${1%,}" --format=csv,noheader,nounits "${ours[@]}" 2>&1 && echo end
}

judge_gpus() {
  local index celsius errors name last='' words=''
  while IFS=, read -r index celsius errors name; do
    last=$index
    if ! is_number "$index"; then words+="$index $celsius " && continue; fi
    gpus_found=$((gpus_found + 1))
    celsius=${celsius// /} errors=${errors// /}
    fact "gpu$index" "${name# }, $celsius C"
    if is_number "$celsius" && ((celsius >= asked[gpu_celsius])); then
      fault gpu "GPU $index has $celsius degrees Celsius, the limit is ${asked[gpu_celsius]}"
    fi
    if is_number "$errors" && ((errors > 0)); then
      fault gpu "GPU $index has had $errors uncorrected memory errors (ECC) since it was reset; 0 are allowed"
    fi
  done
  if [[ $last != end ]]; then
    fault gpu "nvidia-smi fails or takes over ${asked[seconds]} s: ${words:-it says nothing}"
  elif ((gpus_found < asked[gpus])); then
    fault gpu "$gpus_found GPUs answer, the job asked for ${asked[gpus]}"
  fi
}

judge_rows() {
  local gpu pending failure
  while IFS=, read -r gpu pending failure; do
    if [[ ${pending// /} =~ ^([1-9]|Yes) ]]; then
      fault gpu "GPU $gpu waits for a reset to replace bad memory rows; none may be pending"
    fi
    if [[ ${failure// /} =~ ^([1-9]|Yes) ]]; then
      fault gpu "GPU $gpu has no spare memory rows left: a remap has failed"
    fi
  done
}

judge_slowdowns() {
  local values place
  while IFS=, read -ra values; do
    for place in "${!slowdowns[@]}"; do
      if [[ ${values[place + 1]:-} =~ ^" "*Active$ ]]; then
        fault gpu "GPU ${values[0]} is slowed down before any work: ${slowdowns[place]} is active"
      fi
    done
  done
}

judge_processes() {
  local pid used name
  while IFS=, read -r pid used name; do
    if ! is_number "$pid" || [[ $name == *nvidia-cuda-mps* ]]; then continue; fi
    if [[ -z ${CUDA_VISIBLE_DEVICES:-} ]] && ((gpus_found > asked[gpus])); then
      fact "process $pid" "${name# } is on some GPU, perhaps not one of ours"
    else
      fault gpu "process $pid (${name# }) is on a GPU already, with ${used# } MiB"
    fi
  done
}

judge_kernel_log() { # Xid lines of the last day
  local line now
  read -r now _ <"$root/proc/uptime"
  line=$(limited dmesg 2>/dev/null | awk -v now="${now%.*}" -v xids=" ($xids_of_faults)," '
    /NVRM: Xid/ && $0 ~ xids { at = $0; sub(/^\[ */, "", at); if (at + 0 > now - 86400) last = $0 } END { print last }')
  if [[ -n $line ]]; then fault gpu "the kernel reported a fault of a GPU in the last 24 h: $line"; fi
}

# ---- network, site, processes
check_fabric() {
  if [[ -z ${asked[fabric]:-} ]]; then return; fi
  local least=${least_rate[${asked[fabric]}]:-} layer=InfiniBand port state rate total=0 seen='' memlock
  memlock=$(ulimit -l)
  if [[ $memlock != unlimited ]] && ((memlock < 1048576)); then
    fault memlock "$memlock KiB of memory may be locked (ulimit -l), ${asked[fabric]} wants it unlimited"
  fi
  if [[ -z $least ]]; then return; fi
  if [[ ${asked[fabric]} == roce ]]; then layer=Ethernet; fi
  for port in "$root"/sys/class/infiniband/*/ports/*; do
    if [[ $(cat "$port/link_layer" 2>/dev/null) != "$layer" ]]; then continue; fi
    read -r state <"$port/state" && read -r rate _ <"$port/rate"
    seen+="$(cut -d/ -f5,7 <<<"${port#"$root"}") ${state#*: } at $rate Gb/s, "
    if [[ $state == *ACTIVE ]] && ! less "$rate" "$least"; then
      total=$(awk -v a="$total" -v b="$rate" 'BEGIN { print a + b }')
    fi
  done
  fact ports "${seen%, }"
  number fabric_gbps "$total" # compared with the other nodes' by jobs/preflight.py
  if less "$total" "$least"; then
    fault fabric "no $layer port is ACTIVE at $least Gb/s or more, ${asked[fabric]} has them: ${seen:-none found}"
  fi
}

check_site() {
  local line words status
  for line in "${site_lines[@]}"; do
    words=$(limited bash -c "$line" 2>&1 </dev/null)
    status=$?
    if ((status != 0)); then
      fault site "the site's own check fails with exit status $status: $line${words:+: ${words##*$'\n'}}"
      return
    fi
  done
}

name_strays() { # what this user has run here for a minute or more, outside this job
  local pid cpu kib age name strays=''
  while read -r pid cpu kib age name; do
    if ((age < 60 || (${cpu%.*} < 50 && kib < 1048576))); then continue; fi
    if tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "SLURM_JOB_ID=${SLURM_JOB_ID:-none}"; then continue; fi
    strays+="$name (pid $pid, $cpu % of a core, $(gib "$kib") GiB), "
  done < <(limited ps -u "$(id -u)" -o pid=,pcpu=,rss=,etimes=,comm= --sort=-pcpu 2>/dev/null | head -n 5)
  if [[ -n $strays ]]; then fact strays "${strays%, }"; fi
}

report() {
  local verdict=good IFS=,
  if ((${#faults[@]})); then verdict=bad; fi
  printf '{"node": %s, "attempt": %s, "time": %s, "verdict": "%s", "faults": [%s], "facts": {%s}}\n' \
    "$(text "$node")" "$(text "${asked[attempt]:-}")" "$now" "$verdict" "${faults[*]:-}" "${facts[*]:-}"
}

main() {
  fact host "$(uname -n)"
  fact load "$(cut -d' ' -f1-3 "$root/proc/loadavg" 2>/dev/null)"
  check_run_folder
  check_memory
  check_scratch
  check_shared_memory
  check_gpus
  check_fabric
  name_strays
  check_site
  number seconds "$(awk -v a="$now" -v b="$(date +%s.%N)" 'BEGIN { printf "%.2f", b - a }')"
  leave "$(report)"
  ((${#faults[@]} == 0))
}

leave() { # ANSWER    in a file, or else on stdout: a node that cannot write there is told of all the same
  local part=${asked[out]:-}/.$node.$$.partial
  if [[ -n ${asked[out]:-} ]] && { printf '%s\n' "$1" >"$part" && mv -f "$part" "${asked[out]}/$node.json"; } 2>/dev/null; then
    return
  fi
  printf '%s\n' "$1"
}

now=$(date +%s.%N)
main </dev/null # this script may come by stdin itself
