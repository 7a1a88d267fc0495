"""What Slurm prints: recorded from 22.05, written after the manuals of 20.11, 23.11 and 24.05."""

from megatron_jobs.jobs.partitions import (
    Site,
    parse_config,
    parse_memberships,
    parse_partitions,
)

V22_CONFIG = """\
Configuration data as of 2026-11-21T08:38:20
AccountingStorageEnforce = associations,limits,qos
ClusterName             = dev
JobRequeue              = 1
KillWait                = 3 sec
MaxArraySize            = 1001
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
PreemptExemptTime       = 00:00:00
SlurmctldParameters     = preempt_send_user_signal
SLURM_VERSION           = 22.05.8
"""
V22_PARTITIONS = """\
PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES \
QoS=N/A DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO \
MaxNodes=UNLIMITED MaxTime=7-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=node[1-2] \
PriorityJobFactor=1 PriorityTier=10 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE \
PreemptMode=OFF State=UP TotalCPUs=32 TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) \
DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=32,mem=125G,node=2,gres/gpu=16
PartitionName=low AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO \
QoS=N/A DefaultTime=01:00:00 GraceTime=10 MaxTime=7-00:00:00 Nodes=node[1-2] RootOnly=NO \
PreemptMode=REQUEUE State=UP TotalCPUs=32 TotalNodes=2
PartitionName=debug AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO \
QoS=N/A DefaultTime=00:05:00 GraceTime=0 MaxTime=00:30:00 Nodes=node1 RootOnly=NO \
PreemptMode=OFF State=UP TotalCPUs=16 TotalNodes=1
"""
V22_SINFO = """\
main|7-00:00:00|2|idle|16|64000|gpu:h100:8|h100
low|7-00:00:00|2|idle|16|64000|gpu:h100:8|h100
debug|30:00|1|idle|16|64000|gpu:h100:8|h100
"""
V22_MEMBERS = "dev||high,normal,scavenger|normal\nroot||normal|\n"

V20_CONFIG = """\
Configuration data as of 2021-03-02T10:00:00
ClusterName             = old
KillWait                = 30 sec
MaxArraySize            = 4001
PreemptMode             = OFF
PreemptType             = preempt/none
SlurmctldParameters     = (null)
SLURM_VERSION           = 20.11.9
"""
V20_PARTITIONS = """\
PartitionName=batch AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES \
QoS=N/A DefaultTime=NONE GraceTime=0 MaxTime=2-12:30:00 Nodes=c[001-004] RootOnly=NO \
OverSubscribe=NO PreemptMode=OFF State=UP TotalCPUs=512 TotalNodes=4 DefMemPerCPU=3900
PartitionName=v100 AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO \
QoS=N/A DefaultTime=00:10:00 GraceTime=0 MaxTime=1-00:00:00 Nodes=g[01-02] RootOnly=NO \
OverSubscribe=NO PreemptMode=OFF State=UP TotalCPUs=80 TotalNodes=2 DefMemPerNode=UNLIMITED
"""
V20_SINFO = """\
batch|2-12:30:00|3|mix|128|515000|(null)|(null)
batch|2-12:30:00|1|drain*|128|515000|(null)|(null)
v100|1-00:00:00|2|alloc|40|384000|gpu:4(S:0-1),nvme:1|skylake,v100
"""

V24_CONFIG = """\
Configuration data as of 2024-09-01T09:00:00
ClusterName             = new
KillWait                = 60 sec
MaxArraySize            = 100001
PreemptMode             = GANG,REQUEUE
PreemptType             = preempt/qos
PreemptParameters       = send_user_signal,youngest_first
SlurmctldParameters     = (null)
SLURM_VERSION           = 24.05.3
"""
V24_PARTITIONS = """\
PartitionName=h100 AllowGroups=ALL AllowAccounts=astro,bio AllowQos=ALL AllocNodes=ALL \
Default=NO QoS=N/A DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveTopo=NO ExclusiveUser=NO \
GraceTime=120 Hidden=NO MaxNodes=64 MaxTime=UNLIMITED MaxCPUsPerSocket=UNLIMITED Nodes=gh[001-100] \
RootOnly=NO PreemptMode=GANG,REQUEUE State=UP TotalCPUs=19200 TotalNodes=100 ResumeTimeout=GLOBAL \
SuspendTimeout=GLOBAL SuspendTime=GLOBAL PowerDownOnIdle=NO
PartitionName=mig AllowGroups=ALL DenyAccounts=guests AllowQos=ALL Default=NO MaxTime=12:00:00 \
GraceTime=0 RootOnly=NO PreemptMode=OFF State=UP TotalNodes=1
PartitionName=private AllowGroups=chosen-few AllowAccounts=ALL Default=NO MaxTime=UNLIMITED \
RootOnly=NO State=UP TotalNodes=9
PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL Default=YES MaxTime=3-00:00:00 RootOnly=NO \
PreemptMode=OFF State=UP TotalNodes=500
PartitionName=gone AllowGroups=ALL AllowAccounts=ALL MaxTime=UNLIMITED RootOnly=NO State=DOWN
PartitionName=ops AllowGroups=ALL AllowAccounts=ALL MaxTime=UNLIMITED RootOnly=YES State=UP
"""
V24_SINFO = """\
h100|infinite|90|mix-|192|1546000|gpu:h100:8(S:0-1)|h100,ib
h100|infinite|6|idle~|192|1546000|gpu:h100:8(S:0-1)|h100,ib
h100|infinite|3|maint|192|1546000|gpu:h100:8(S:0-1)|h100,ib
h100|infinite|1|resv$|192|1546000|gpu:h100:8(S:0-1)|h100,ib
mig|12:00:00|1|idle|64|512000|gpu:a100:3,gpu:a100_3g.20gb:2|a100
private|infinite|9|idle|192|1546000|gpu:b200:8|b200
cpu|3-00:00:00|500|plnd|256|768000|(null)|
gone|infinite|4|down|192|1546000|gpu:b300:8|
ops|infinite|4|idle|192|1546000|gpu:b300:8|
"""
V24_MEMBERS = "bio||normal,long|normal\nguests|cpu|normal|\n"


def site_of(config: str, partitions: str, sinfo: str, members: str = "", default: str = "") -> Site:
    settings = parse_config(config)
    return Site(
        settings=settings,
        partitions=parse_partitions(partitions, sinfo, settings),
        memberships=parse_memberships(members),
        default_account=default,
    )


def v22() -> Site:
    return site_of(V22_CONFIG, V22_PARTITIONS, V22_SINFO, V22_MEMBERS, "dev")


def v20() -> Site:
    return site_of(V20_CONFIG, V20_PARTITIONS, V20_SINFO)


def v24() -> Site:
    return site_of(V24_CONFIG, V24_PARTITIONS, V24_SINFO, V24_MEMBERS, "guests")


V23 = V24_CONFIG.replace("24.05.3", "23.11.10"), V24_PARTITIONS.replace(" ExclusiveTopo=NO", "")
