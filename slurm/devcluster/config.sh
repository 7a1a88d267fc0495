# shellcheck shell=bash
# The files in DIR/etc that make it a cluster. Each function prints one of them. To be sourced.

# shellcheck disable=SC2034 # read by up
CHANGED= # set by write_config: whether slurm.conf or gres.conf is not what it was

write_config() {
  mkdir -p "$DIR"/{etc,run,log,state,spool,gpu,munge,database}
  chmod 755 "$DIR" "$DIR"/{etc,run,log}
  chmod 700 "$DIR"/{munge,database}
  make_gpus
  choose_isolation
  replace etc/hosts host_names
  replace etc/cgroup.conf cgroup_conf
  replace etc/mail mail_program
  chmod +x "$DIR/etc/mail"
  CHANGED=
  replace etc/gres.conf gres_conf
  replace etc/slurm.conf slurm_conf
  (umask 077 && slurmdbd_conf >"$DIR/etc/slurmdbd.conf") # slurmdbd refuses it when others can read it
  settings >"$DIR/etc/settings.sh"
  environment >"$DIR/env.sh"
}

replace() { # FILE FUNCTION
  "$2" >"$DIR/$1.new"
  if cmp -s "$DIR/$1.new" "$DIR/$1"; then
    rm -f "$DIR/$1.new"
  else
    mv -f "$DIR/$1.new" "$DIR/$1"
    CHANGED=yes
  fi
}

# A countable GPU needs the name of a device; a link to one will do.
make_gpus() {
  local index
  rm -f "$DIR"/gpu/nvidia*
  for ((index = 0; index < GPUS; index++)); do ln -sfn /dev/null "$DIR/gpu/nvidia$index"; done
}

# Each slurmd in its own uts namespace has its own host name. As one who is not root: inside a user namespace that
# keeps the uid, so that munge still sees who it is.
choose_isolation() {
  APART=(unshare --uts --mount --propagation private)
  if [[ $(id -u) -ne 0 ]]; then APART=(unshare --user --map-current-user --keep-caps "${APART[@]:1}"); fi
  if [[ $ISOLATION == none ]]; then return; fi
  if "${APART[@]}" true 2>/dev/null; then
    ISOLATION=uts
    return
  fi
  if [[ $ISOLATION == uts ]]; then fail "no namespace can be made here; use MJ_DEVCLUSTER_ISOLATION=none"; fi
  say "no namespace can be made here: all nodes share one host name"
  ISOLATION=none
}

node_address() { if [[ $ISOLATION == none ]]; then echo 127.0.0.1; else echo "127.0.77.$1"; fi; } # INDEX

host_names() {
  local index
  echo "127.0.0.1 localhost $(hostname)"
  for ((index = 1; index <= NODES; index++)); do echo "$(node_address "$index") node$index $(host_of "node$index")"; done
}

# Without a cgroup plug-in named, slurmd ends where no cgroup file system is mounted, though nothing here uses it.
cgroup_conf() { printf 'CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n'; }

# In place of mail(1): what Slurm would send is written down.
mail_program() {
  echo "#!/bin/bash"
  # shellcheck disable=SC2016 # for that script to expand
  printf 'echo "$*" >>%q\n' "$DIR/log/mail.log"
}

gres_conf() {
  echo "AutoDetect=off"
  if [[ $GPUS -gt 0 ]]; then
    echo "NodeName=node[1-$NODES] Name=gpu Type=$GPU_TYPE File=$DIR/gpu/nvidia[0-$((GPUS - 1))]"
  fi
}

plugin_line() { if [[ -n $PLUGINS ]]; then echo "PluginDir=$PLUGINS"; fi; }

slurm_conf() {
  slurm_conf_daemons
  slurm_conf_policy
  slurm_conf_nodes
}

# cred_expire: a requeued job waits that long, 121 s by default. AccountingStoragePass: AuthInfo's socket is not used
# towards slurmdbd. config_overrides: nodes are as large as written here. ReturnToService=1: a node set down stays so.
slurm_conf_daemons() {
  plugin_line
  cat <<END
ClusterName=dev
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$ME
SlurmdUser=$ME
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.socket,cred_expire=5
CredType=cred/munge
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 1))
AccountingStoragePass=$DIR/run/munge.socket
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment,job_env,job_script
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
MpiDefault=none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
MailProg=$DIR/etc/mail
ReturnToService=1
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=10
InactiveLimit=0
MinJobAge=600
MessageTimeout=30
TCPTimeout=10
END
}

# DefMemPerCPU: without it one job takes a whole node's memory. EnforcePartLimits: without it a job over a partition's
# limit is taken and waits for ever. preempt_send_user_signal: --signal is sent before a preemption too.
slurm_conf_policy() {
  cat <<END
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=1000
EnforcePartLimits=ALL
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0
SlurmctldParameters=preempt_send_user_signal
PriorityType=priority/multifactor
PriorityWeightQOS=1000
PriorityWeightPartition=1000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
END
}

slurm_conf_nodes() {
  local index gres=
  if [[ $GPUS -gt 0 ]]; then gres="Gres=gpu:$GPU_TYPE:$GPUS Feature=$GPU_TYPE"; fi
  for ((index = 1; index <= NODES; index++)); do
    echo "NodeName=node$index NodeHostname=$(host_of "node$index") NodeAddr=$(node_address "$index") Port=$((PORT + 1 + index))" \
      "CPUs=$CPUS Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY_MB $gres"
  done
  cat <<END
PartitionName=main Nodes=ALL Default=YES MaxTime=7-0 DefaultTime=60 PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=7-0 DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=debug Nodes=node1 MaxTime=30 DefaultTime=5 PriorityTier=20 PreemptMode=OFF
END
}

slurmdbd_conf() {
  plugin_line
  cat <<END
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
SlurmUser=$ME
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=$ME
StorageLoc=slurm_accounting
END
}

# For down, status, node and the next up: what is not in their environment is as it was.
settings() {
  local name
  for name in NODES CPUS MEMORY_MB GPUS GPU_TYPE PORT ISOLATION ODD_NAMES PREFIX; do
    # shellcheck disable=SC2016 # expanded where it is read
    printf ': "${MJ_DEVCLUSTER_%s:=%s}"\n' "$name" "${!name}"
  done
}

environment() {
  echo "# Source this to use the cluster."
  printf 'export MJ_DEVCLUSTER_DIR=%q\n' "$DIR" # for down, status and node
  printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"
  if [[ -z $PLUGINS ]]; then return; fi
  # shellcheck disable=SC2016 # for the reader's shell to expand
  printf 'export PATH=%q:$PATH\n' "$PREFIX/usr/bin:$PREFIX/usr/sbin"
  printf 'export LD_LIBRARY_PATH=%q\n' "$LD_LIBRARY_PATH"
}
