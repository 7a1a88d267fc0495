# shellcheck shell=bash
# Where Slurm's programs come from: here already, installed as root, or unpacked into a folder. To be sourced.

# program: Debian package. The database's -core packages bring no service and no data folder.
SOURCES=(
  munged:munge slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client slurmdbd:slurmdbd
  mariadbd:mariadb-server-core mariadb-install-db:mariadb-server-core mariadb:mariadb-client-core
)
# What those need beyond a minimal Debian, for the one who cannot install.
LIBRARIES=(
  libmunge2 libhwloc15 liblua5.1-0 slurm-wlm-basic-plugins slurm-wlm-mysql-plugin
  mariadb-common libmariadb3 liburing2 libaio1 libnuma1 libsnappy1v5 libpmem1 libdaxctl1 libndctl6
)

missing_packages() {
  local pair
  for pair in "${SOURCES[@]}"; do
    if ! command -v "${pair%%:*}" >/dev/null; then echo "${pair##*:}"; fi
  done | sort -u
}

get_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  if [[ ${#missing[@]} -eq 0 ]]; then return; fi
  command -v apt-get >/dev/null ||
    unavailable "not installed: ${missing[*]}; this is not Debian or Ubuntu, so install Slurm, munge and MariaDB by hand"
  mkdir -p "$DIR/log"
  if [[ $(id -u) -eq 0 ]]; then install_packages "${missing[@]}"; else unpack_packages; fi
}

install_packages() { # PACKAGE...
  local log=$DIR/log/apt.log
  say "installing the Debian packages ${missing[*]} and what they need (apt-get install)"
  export DEBIAN_FRONTEND=noninteractive
  if ! try_install "$@" >"$log" 2>&1; then
    apt-get update >>"$log" 2>&1 || true # lists absent or old
    try_install "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; unavailable "apt-get could not install; all it said: $log"; }
  fi
  hash -r
}

try_install() { apt-get install -y --no-install-recommends "$@"; }

unpack_packages() { # nothing is installed: the same packages, unpacked below PREFIX
  local log=$DIR/log/apt.log package
  say "not root: unpacking Debian's Slurm, munge and MariaDB (90 MB) into $PREFIX, nothing is installed"
  mkdir -p "$PREFIX/downloads" "$PREFIX/var"
  (cd "$PREFIX/downloads" && apt-get download "${SOURCES[@]##*:}" "${LIBRARIES[@]}") >"$log" 2>&1 || {
    tail -n 5 "$log" >&2
    unavailable "apt-get download failed; ask root for: apt-get update, or for: apt-get install $(missing_packages | xargs)"
  }
  for package in "$PREFIX"/downloads/*.deb; do dpkg -x "$package" "$PREFIX"; done
  for package in slurmctld slurmd slurmstepd; do # the names that an installation would make
    ln -sfn "$package-wlm" "$PREFIX/usr/sbin/$package"
  done
  use_prefix
}
