#!/usr/bin/env bash
# A whole Slurm on this machine, to try a job file: one node, two CPUs, everything in DIR.
#
#   launch/slurm/one_machine.sh start DIR    DIR is made, or is empty; prints what to export
#   launch/slurm/one_machine.sh stop DIR     ends its jobs and daemons, and removes DIR
#
# Root only, Debian's packages slurmctld slurmd slurm-client munge. It needs neither systemd nor
# cgroups, listens on ports of its own, and leaves a Slurm or munge of the machine alone. It is for
# tests: whoever reads DIR/munge.key may run commands as root.
set -euo pipefail

WAIT_SECS=30
MADE=.made_by_one_machine # stop removes no directory without it

fail() {
  echo "one_machine.sh: $*" >&2
  exit 1
}

check_needs() {
  [ "$(id -u)" = 0 ] || fail "slurmd starts jobs for others, so it has to be root"
  local program
  for program in munged slurmctld slurmd srun; do
    command -v "$program" >/dev/null || fail "there is no $program:" \
      "apt-get install slurmctld slurmd slurm-client munge"
  done
}

# Waits until a command succeeds, at most WAIT_SECS.
wait_until() {
  local deadline=$((SECONDS + WAIT_SECS))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}

# Prints a port that nobody listens on now, at or above the one given.
free_port() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

write_config() {
  local dir=$1 host controller_port node_port
  host=$(hostname -s)
  controller_port=$(free_port $((7000 + $$ % 1000)))
  node_port=$(free_port $((controller_port + 1)))
  cat >"$dir/slurm.conf" <<END
ClusterName=onemachine
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
# A requeued job waits until the credentials of its last run are void: 120 seconds by default.
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
# No cgroups: a container may not make any.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# CPUs as written below, also on a machine that has one.
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
# Of a cancelled job: long enough for two workers to save on a busy machine.
KillWait=60
SchedulerParameters=sched_interval=5,bf_interval=5
NodeName=localhost NodeHostname=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=work Nodes=ALL Default=YES MaxTime=INFINITE
END
}

start() {
  local dir=$1
  check_needs
  [ -z "$(ls -A "$dir" 2>/dev/null)" ] || fail "$dir is not empty"
  mkdir -p "$dir/state" "$dir/spool"
  chmod 755 "$dir"
  dir=$(cd "$dir" && pwd)
  touch "$dir/$MADE"
  (umask 377 && head -c 128 /dev/urandom >"$dir/munge.key")
  # --force: it would refuse directories such as /tmp, which others may write to.
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
    --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" \
    --num-threads=2 || fail "munged did not start: $dir/munged.log"
  write_config "$dir"
  export SLURM_CONF="$dir/slurm.conf"
  slurmctld || fail "slurmctld did not start: $dir/slurmctld.log"
  wait_until scontrol ping || fail "slurmctld does not answer: $dir/slurmctld.log"
  slurmd || fail "slurmd did not start: $dir/slurmd.log"
  wait_until srun --immediate=5 --nodes=1 --ntasks=1 true ||
    fail "the node takes no job: $dir/slurmctld.log, $dir/slurmd.log"
  echo "export SLURM_CONF=$SLURM_CONF"
}

has_no_job() { [ -z "$(squeue --noheader 2>/dev/null)" ]; }
is_gone() { ! kill -0 "$1"; }

stop() {
  local dir daemon pid
  [ -e "$1/$MADE" ] || fail "$1 was not made by: one_machine.sh start"
  dir=$(cd "$1" && pwd)
  export SLURM_CONF="$dir/slurm.conf"
  if timeout 10 scontrol ping >/dev/null 2>&1; then
    timeout 10 scancel --user=root || true
    wait_until has_no_job || echo "one_machine.sh: jobs are left: $(squeue)" >&2
  fi
  for daemon in slurmd slurmctld munged; do
    pid=$(cat "$dir/$daemon.pid" 2>/dev/null) || continue
    # A number that another program has by now is left alone.
    grep -q "$daemon" "/proc/$pid/cmdline" 2>/dev/null || continue
    kill "$pid"
    wait_until is_gone "$pid" || kill -KILL "$pid"
  done
  rm -rf "$dir"
}

case "${1:-} $#" in
"start 2") start "$2" ;;
"stop 2") stop "$2" ;;
*) fail "start DIR or stop DIR" ;;
esac
