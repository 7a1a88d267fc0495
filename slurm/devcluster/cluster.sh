# shellcheck shell=bash disable=SC2034 # used where this is sourced
# What up, down and status share: the settings, and how daemons are found, awaited and stopped. To be sourced.

# ---- settings: the environment has the last word, then what the cluster was last brought up with
DIR=${MJ_DEVCLUSTER_DIR:-/dev/shm/mj-devcluster-$(id -u)} # tmpfs: Slurm and its database sync to disk a lot
# shellcheck source=/dev/null # written by config.sh
if [[ -O $DIR/etc/settings.sh ]]; then . "$DIR/etc/settings.sh"; fi
NODES=${MJ_DEVCLUSTER_NODES:-2}
CPUS=${MJ_DEVCLUSTER_CPUS:-16}             # on each node; more than the machine has is fine
MEMORY_MB=${MJ_DEVCLUSTER_MEMORY_MB:-64000} # on each node; counted, not enforced
GPUS=${MJ_DEVCLUSTER_GPUS:-8}              # on each node; counted only; may be 0
GPU_TYPE=${MJ_DEVCLUSTER_GPU_TYPE:-h100}
PORT=${MJ_DEVCLUSTER_PORT:-$((20000 + $(id -u) % 200 * 60))} # the first of NODES + 2; below the ephemeral ones
ISOLATION=${MJ_DEVCLUSTER_ISOLATION:-auto}  # uts: a host name for each node; none; auto: uts if it can be had
ODD_NAMES=${MJ_DEVCLUSTER_ODD_NAMES:-0}      # 1: the last node calls itself something else than Slurm does
PREFIX=${MJ_DEVCLUSTER_PREFIX:-$DIR/packages} # where packages are unpacked for one who is not root

ACCOUNT=dev
ME=$(id -un 2>/dev/null || id -u)
DAEMONS=(munged mariadbd slurmdbd slurmctld)
unset "${!SLURM_@}" # inside a job of another cluster its variables would lead the clients astray

export SLURM_CONF=$DIR/etc/slurm.conf # also the mark by which a daemon is known to be ours: see is_ours
export MYSQL_UNIX_PORT=$DIR/run/mysql.socket
export PATH=$PATH:/usr/sbin:/sbin

say() { printf 'devcluster: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
unavailable() { say "$*"; exit 69; } # Slurm cannot be had on this machine: nothing is wrong with it

check_settings() {
  local number
  [[ $DIR =~ ^/[A-Za-z0-9_./-]+$ ]] ||
    fail "MJ_DEVCLUSTER_DIR: found '$DIR', Slurm's files take a plain absolute path; use letters, digits, . _ / -"
  for number in "$NODES" "$CPUS" "$MEMORY_MB" "$PORT"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || fail "settings: found '$number' where a count above zero is needed"
  done
  [[ $PREFIX =~ ^/[A-Za-z0-9_./-]+$ ]] || fail "MJ_DEVCLUSTER_PREFIX: found '$PREFIX', must be a plain absolute path"
  [[ $GPU_TYPE =~ ^[a-z0-9_]+$ ]] || fail "MJ_DEVCLUSTER_GPU_TYPE: found '$GPU_TYPE'; use small letters, digits, _"
  [[ $GPUS =~ ^[0-9]+$ ]] || fail "MJ_DEVCLUSTER_GPUS: found '$GPUS', must be a count, 0 for none"
  [[ $NODES -le 250 ]] || fail "MJ_DEVCLUSTER_NODES: found $NODES, there are addresses for 250"
  [[ $ODD_NAMES =~ ^[01]$ ]] || fail "MJ_DEVCLUSTER_ODD_NAMES: found '$ODD_NAMES', must be 0 or 1"
  [[ $ISOLATION =~ ^(auto|uts|none)$ ]] ||
    fail "MJ_DEVCLUSTER_ISOLATION: found '$ISOLATION', must be auto, uts or none"
}

# Packages that were unpacked, not installed, are found through these.
use_prefix() {
  local libraries
  libraries=$(dirname "$(find "$PREFIX/usr/lib" -name slurm-wlm -type d | head -n 1)")
  PLUGINS=$libraries/slurm-wlm
  if [[ :${LD_LIBRARY_PATH:-}: == *:$PLUGINS:* ]]; then return; fi # done already, by env.sh perhaps
  export PATH=$PREFIX/usr/sbin:$PREFIX/usr/bin:$PATH
  export LD_LIBRARY_PATH=$libraries:$PLUGINS${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}
PLUGINS= # folder of Slurm's plug-ins; empty: where it was built to look
if [[ -x $PREFIX/usr/sbin/slurmctld ]]; then use_prefix; fi

# Only one of up and down at a time: start this script again under a lock that its daemons do not inherit.
one_at_a_time() {
  mkdir -p "$DIR"
  [[ -O $DIR ]] || fail "$DIR: belongs to another user; set MJ_DEVCLUSTER_DIR"
  if [[ -z ${MJ_DEVCLUSTER_LOCKED:-} ]]; then
    MJ_DEVCLUSTER_LOCKED=1 exec flock --close "$DIR/lock" "$@"
  fi
  unset MJ_DEVCLUSTER_LOCKED
}

# What a node calls itself, where each has a host name of its own.
host_of() { # NODE
  if [[ $ODD_NAMES == 1 && $1 == node$NODES ]]; then echo "$1.dev"; else echo "$1"; fi
}

node_names() { seq -f 'node%.0f' "$NODES"; }

# ---- daemons, each known by DIR/run/NAME.pid
pid_of() { tr -dc 0-9 2>/dev/null <"$DIR/run/$1.pid" || true; }

# Whether a process lives and belongs to this cluster. A zombie does not count, nor one that got a pid again.
is_ours() { # PID
  local name state
  [[ -n $1 && -r /proc/$1/stat ]] || return 1
  name=$(cat "/proc/$1/comm") && [[ $name =~ ^(munged|mariadbd|slurm) ]] || return 1
  state=$(sed 's/.*) //' "/proc/$1/stat") && [[ -n $state && ! $state =~ ^[ZX] ]] || return 1
  grep -qzxF "SLURM_CONF=$SLURM_CONF" "/proc/$1/environ"
} 2>/dev/null

runs() { is_ours "$(pid_of "$1")"; } # NAME

# A deadline rather than a number of tries: a client whose daemon is away may hang for many seconds.
wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [[ $SECONDS -le $end ]] || return 1
    sleep 0.05
  done
}

is_gone() { ! is_ours "$1"; } # PID

stop_daemon() { # NAME    follows the process, not its pid file: that goes first
  local pid
  pid=$(pid_of "$1")
  if is_ours "$pid"; then
    kill -TERM "$pid" 2>/dev/null || true
    if ! wait_for 10 is_gone "$pid"; then
      say "$1 (pid $pid) did not end in 10 s, killing it"
      kill -KILL "$pid" 2>/dev/null || true
    fi
  fi
  rm -f "$DIR/run/$1.pid"
}

running_nodes() { # names of the slurmds that have a pid file
  local file
  for file in "$DIR"/run/slurmd.*.pid; do
    if [[ -e $file ]]; then basename "$file" .pid; fi
  done
}

# The processes that watch over the jobs of a node, or of all ('*'); they outlive slurmd. Their titles are written over
# their environment, but each keeps the log of its node open.
steps_of() { # NODE
  local file
  # shellcheck disable=SC2013 # no path in /proc has a blank
  for file in $(grep -lx slurmstepd /proc/[0-9]*/comm 2>/dev/null); do
    if [[ -n $(find "${file%/comm}/fd" -lname "$DIR/log/slurmd.$1.log" -print -quit 2>/dev/null) ]]; then pid_in "$file"; fi
  done
}

# The processes of a node's jobs, or of all ('.*'): also those that have left the one that watched over them.
tasks_of() { # NODE
  local file
  # shellcheck disable=SC2013
  for file in $(grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2>/dev/null); do
    if grep -qzx "SLURMD_NODENAME=$1" "$file" 2>/dev/null; then pid_in "$file"; fi
  done
}

pid_in() { basename "$(dirname "$1")"; } # /proc/PID/FILE

stop_slurm() { # the controller and the nodes; jobs that run go on under their slurmstepd
  local name
  for name in $(running_nodes); do stop_daemon "$name" & done
  wait
  stop_daemon slurmctld
}
