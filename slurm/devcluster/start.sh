# shellcheck shell=bash
# Starting a daemon, and the slurmd of a node. To be sourced, after config.sh.

# Start a daemon that goes to the background by itself; what it said is shown if it does not.
start() { # NAME COMMAND...
  local name=$1 words=$DIR/log/$1.start
  shift
  "$@" </dev/null >"$words" 2>&1 && return
  cat "$words" >&2
  if [[ -e $DIR/log/$name.log ]]; then tail -n 5 "$DIR/log/$name.log" >&2; fi
  fail "$name did not start; its log: $DIR/log/$name.log"
}

start_node() { # NAME
  local command=(slurmd -N "$1")
  if runs "slurmd.$1"; then return; fi
  if [[ -n $PLUGINS ]]; then command+=(-d "$PREFIX/usr/sbin/slurmstepd"); fi
  mkdir -p "$DIR/spool/$1"
  if [[ $ISOLATION != none ]]; then
    # shellcheck disable=SC2016 # expanded by the inner shell
    command=("${APART[@]}" bash -c 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"' _ \
      "$(host_of "$1")" "$DIR/etc/hosts" "${command[@]}")
  fi
  start "slurmd.$1" "${command[@]}"
  # what was started may return before the daemon has written its pid: one that has crashed left another there
  wait_for 30 runs "slurmd.$1" || fail "slurmd of $1 is not there any more; its log: $DIR/log/slurmd.$1.log"
}
