#!/usr/bin/env bash
# A Slurm of one node on this machine, for tests: tests/slurm/start.sh FOLDER [CPUS]
# Needs Debian's packages slurmctld, slurmd, slurm-client and munge; neither root nor systemd.
# All that it writes is in FOLDER (a short path: sockets have a limit). `. FOLDER/env` before sbatch; tests/slurm/stop.sh FOLDER ends it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
run=$(cd "$1" && pwd)
host=$(hostname -s)

cat > "$run/env" <<END
export SLURM_CONF='$run/slurm.conf'
export PATH="\$PATH:/usr/sbin"
END
# shellcheck disable=SC1091
. "$run/env"

mkdir -p "$run"/{munge,state,spool,log}
chmod 700 "$run/munge"
(umask 077; head -c 1024 /dev/urandom > "$run/munge/key")

free() { # a port that nobody answers on
    local port
    while port=$((20000 + RANDOM % 30000)); (: < "/dev/tcp/127.0.0.1/$port") 2> "$run/log/ports"; do :; done
    echo "$port"
}

cat > "$run/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free)
SlurmdPort=$(free)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$run/munge.sock,cred_expire=10
PluginDir=/usr/lib/$(uname -m)-linux-gnu/slurm-wlm
StateSaveLocation=$run/state
SlurmdSpoolDir=$run/spool
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.pid
SlurmctldLogFile=$run/log/slurmctld.log
SlurmdLogFile=$run/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
ReturnToService=2
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
SlurmdTimeout=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=${2:-2} RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END

fail() {
    "$here/stop.sh" "$run"
    tail -n 15 "$run"/log/* >&2
    echo "$1" >&2
    exit 1
}

"$here/daemon.sh" "$run" munged
for _ in $(seq 100); do [ -S "$run/munge.sock" ] && break; sleep 0.05; done
[ -S "$run/munge.sock" ] || fail "munged does not start"
"$here/daemon.sh" "$run" slurmctld
"$here/daemon.sh" "$run" slurmd

for _ in $(seq 100); do
    [ "$(timeout 2 sinfo --noheader --format=%t 2> "$run/log/sinfo")" = idle ] && exit 0
    [ "$SECONDS" -gt 20 ] && break
    sleep 0.1
done
fail "slurmctld and slurmd do not come up within $SECONDS s"
