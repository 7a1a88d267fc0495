#!/bin/bash
# What a node is like and what becomes of a job whose time runs out: a job of one minute, sent by
# `mj cluster discover`. Prints lines NAME<tab>VALUE; jobs/probe.py reads them.
#   probe.sh HOST PORT PYTHON TOKEN   on the node: HOST:PORT is listened to where it was submitted, and
#                                     TOKEN is a file in the home there (or empty)
#   probe.sh step                     as a step of itself
# shellcheck disable=SC2034

say() { printf '%s\t%s\n' "$1" "$2"; }
# Starts no process: a signal that goes to the whole step would kill it. Whole seconds before bash 5.
tell_time() {
  stamp=${EPOCHREALTIME/,/.}
  if [[ -z $stamp ]]; then printf -v stamp '%(%s)T' -1; fi
}
works() { "$@" >/dev/null 2>&1 && echo yes || echo no; }

# Until it is killed: which signals come, and when it was last alive.
stay() { # WHO
  local name stamp
  # shellcheck disable=SC2064 # WHO and the name are known now
  for name in HUP INT USR1 USR2 TERM CONT; do
    trap "tell_time; say signal '$1 $name '\$stamp" "$name"
  done
  while :; do
    tell_time
    echo "$stamp" >"alive.$1"
    sleep 0.5 &
    wait "$!"
  done
}

ask_slurm() {
  local command
  for command in scontrol sbatch squeue sinfo srun; do
    say "has.$command" "$(works type "$command")"
  done
  say answers.scontrol "$(works scontrol show job "$SLURM_JOB_ID")"
  say answers.squeue "$(works squeue --jobs="$SLURM_JOB_ID")"
  say answers.sinfo "$(works sinfo --noheader)"
  say answers.sbatch "$(works sbatch --test-only --partition="$SLURM_JOB_PARTITION" --time=1 --wrap=true)"
  say container.pyxis "$(srun --help 2>/dev/null | grep -q -e --container-image && echo yes || echo no)"
  for command in apptainer singularity enroot; do
    say "container.$command" "$("$command" --version 2>/dev/null || "$command" version 2>/dev/null | head -n 1)"
  done
  say modules "$(bash -lc 'type module' >/dev/null 2>&1 && echo yes || echo no)"
}

measure() { # PYTHON TOKEN
  local limit
  say host "$(hostname)"
  say kernel "$(uname -sr)"
  say cpus "$(nproc)"
  say cpus.all "$(nproc --all)"
  say memory_kb "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
  for limit in "memlock l" "nofile n" "nproc u" "stack s" "core c"; do
    say "ulimit.${limit% *}" "$(ulimit "-${limit#* }")"
  done
  if type nvidia-smi >/dev/null 2>&1; then
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null |
      while read -r line; do say gpu "$line"; done
  fi
  say python "$([[ -x $1 ]] && "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null)"
  if [[ -n $2 ]]; then say home.same "$(works test -e "$HOME/$2")"; fi
  say home "$(stat -f -c %T "$HOME" 2>/dev/null)"
}

look_for_scratch() {
  local folder
  for folder in "$TMPDIR" "$SLURM_TMPDIR" "$LOCAL_SCRATCH" "$LOCALSCRATCH" "$JOBFS" /local /localscratch \
    /local_scratch /scratch/local /lscratch /scratch /nvme /mnt/nvme /mnt/local /mnt/localdisk /raid \
    /var/tmp /tmp /dev/shm; do
    if [[ -n $folder && -d $folder && -w $folder ]]; then
      say scratch "$(stat -f -c '%T %a %S' "$folder") $(stat -c %d "$folder") $folder"
    fi
  done
}

look_for_fabric() { # HOST
  local path name
  for path in /sys/class/infiniband/*; do
    if [[ ! -e $path ]]; then continue; fi
    name=${path##*/}
    say rdma "$name|$(basename "$(readlink -f "$path/device/driver" 2>/dev/null)")|$(cat "$path"/ports/1/link_layer \
      2>/dev/null)|$(cat "$path"/ports/1/rate 2>/dev/null)|$(cat "$path"/ports/1/state 2>/dev/null)"
  done
  for path in /sys/class/net/*; do say interface "${path##*/}"; done
  say route "$(awk '$2 == "00000000" {print $1; exit}' /proc/net/route 2>/dev/null)"
  say address "$(getent hosts "$(hostname)" | awk '{print $1; exit}')"
  say login.address "$(getent hosts "$1" | awk '{print $1; exit}')"
}

knock() { # NAME HOST PORT
  say "$1" "$(works timeout 4 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3")"
}

if [[ $1 == step ]]; then
  stay step
fi
tell_time
say started "$stamp"
if type srun >/dev/null 2>&1; then
  srun --ntasks=1 --output=step.out bash probe.sh step &
else
  say step "no srun here"
fi
measure "$3" "$4"
ask_slurm
look_for_scratch
look_for_fabric "$1"
knock tcp.login "$1" "$2"
knock tcp.outside pypi.org 443
tell_time
say measured "$stamp"
stay script
