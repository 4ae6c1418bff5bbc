#!/usr/bin/env bash
# cluster.sh - a throwaway Ceph cluster of one machine with an S3 gateway, on loopback only.
#
#   cluster.sh start           bring it up (or find it up), wait until the gateway answers and its S3 user exists, print
#                              `export ...` lines on stdout (progress goes to stderr)
#   cluster.sh restart         start again what was killed; its data and its port stay (bluestore)
#   cluster.sh stop            stop the processes that this script started, remove the data
#   cluster.sh status          0 and the export lines when it is up; 1 and "stopped" when not
#   cluster.sh kill-gateway    SIGKILL for the gateway, and the same for: kill-osd, kill-mon
#   cluster.sh freeze-gateway  SIGSTOP for the gateway: it holds its connections and answers nothing; also freeze-osd
#   cluster.sh thaw            let go on what was frozen
#   cluster.sh ceph ...        run the ceph command against it, e.g. `cluster.sh ceph -s`
#
#   S3 client ──HTTP──▶ radosgw ──▶ ceph-osd ──▶ a sparse file (bluestore) or memory (memstore)
#                          └──────▶ ceph-mon ◀──┘
#
# No mgr, no cephx, one replica. Everything lives in CEPH_DIR; nothing is read from or written to /etc/ceph or
# /var/lib/ceph. Needs neither root nor systemd. Any local user can reach the cluster: for tests only.
#
# Environment (all optional; fixed at `start`):
#   CEPH_DIR          private directory             (default /tmp/spillway-ceph-<uid>; keep the path short)
#   CEPH_PORT         gateway port on 127.0.0.1     (default: a free one from 10000 to 20000)
#   CEPH_STORE        bluestore | memstore          (default bluestore, which a real cluster runs; memstore is up in 1 s
#                                                    instead of 8 and loses everything when the OSD ends)
#   CEPH_STORE_BYTES  size of the store             (default 32 GiB bluestore, sparse; 8 GiB memstore)
#   CEPH_KEEP         1: `stop` keeps the data, and the next `start` serves it again
#   CEPH_OWNER_PID    when this process ends, however it does, the cluster is stopped
#   CEPH_ACCESS_KEY, CEPH_SECRET_KEY   the S3 user's keys
set -euo pipefail

DIR=$(realpath -m -- "${CEPH_DIR:-/tmp/spillway-ceph-$(id -u)}")
CONF=$DIR/ceph.conf
SELF=$(realpath -- "${BASH_SOURCE[0]}")
HERE=$(dirname -- "$SELF")
say() { printf 'cluster.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# --- processes -------------------------------------------------------------------------
# A pid counts as ours only while its command line still names our ceph.conf.
pid_of() { cat "$DIR/$1.pid" 2>/dev/null || true; }
alive() {
  local pid; pid=$(pid_of "$1")
  [[ $pid =~ ^[0-9]+$ ]] && grep -qzxF -- "$CONF" "/proc/$pid/cmdline" 2>/dev/null
}
spawn() { # name command...
  local name=$1; shift
  setsid nohup "$@" </dev/null >>"$DIR/$name.out" 2>&1 9>&- &
  echo $! >"$DIR/$name.pid"
  local _; for _ in {1..40}; do alive "$name" && return; sleep 0.05; done # until it has exec'ed
}
halt() { # name seconds
  local name=$1 left=$(( $2 * 20 )) pid
  if alive "$name"; then
    pid=$(pid_of "$name")
    if (( left > 0 )); then kill -TERM "$pid" 2>/dev/null || true; kill -CONT "$pid" 2>/dev/null || true; fi
    while alive "$name" && (( left-- > 0 )); do sleep 0.05; done
    if alive "$name"; then kill -KILL "$pid" 2>/dev/null || true; fi
    while alive "$name"; do sleep 0.02; done
  fi
  rm -f "$DIR/$name.pid"
}
# Data that nobody will see again needs no orderly end.
halt_all() {
  if [[ ${CEPH_KEEP:-} == 1 ]]; then halt gateway 5; halt osd 10; halt mon 5; else halt gateway 0; halt osd 0; halt mon 0; fi
}
hit() { # signal name
  alive "$2" || die "the $2 is not running"
  kill "-$1" "$(pid_of "$2")"
  if [[ $1 == KILL ]]; then while alive "$2"; do sleep 0.02; done; fi
}

# The guard waits for the owner to end and stops the cluster then, also when the owner was killed outright.
guard() { # owner_pid
  # shellcheck disable=SC2016 # expanded by the inner shell
  CEPH_DIR=$DIR setsid bash -c 'tail --pid="$1" -f /dev/null; exec "$2" stop' spillway-ceph-guard "$1" "$SELF" \
    </dev/null >/dev/null 2>&1 9>&- &
  echo $! >"$DIR/guard.pid"
}
halt_guard() {
  local pid; pid=$(pid_of guard)
  rm -f "$DIR/guard.pid"
  [[ $pid =~ ^[0-9]+$ && $pid != "$$" ]] || return 0
  if grep -qzxF spillway-ceph-guard "/proc/$pid/cmdline" 2>/dev/null; then kill -TERM -- "-$pid" 2>/dev/null || true; fi
}

# --- ports -----------------------------------------------------------------------------
busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() { local p=$1; while busy "$p"; do p=$((p + 1)); done; echo "$p"; }
http_ok() { # port: does the gateway answer an anonymous GET / with 200?
  local line
  line=$( { exec 3<>"/dev/tcp/127.0.0.1/$1"; printf 'GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3
            head -n 1 <&3; } 2>/dev/null ) || return 1
  [[ $line == *" 200 "* ]]
}

# shellcheck disable=SC1091,SC2154 # sets gateway_port, store, access_key, secret_key
exports() {
  . "$DIR/settings"
  cat <<EXPORTS
export S3_ENDPOINT=http://127.0.0.1:$gateway_port
export S3_FORCE_PATH_STYLE=1
export AWS_ACCESS_KEY_ID=${access_key@Q}
export AWS_SECRET_ACCESS_KEY=${secret_key@Q}
export AWS_REGION=us-east-1
export S3_ENGINE='ceph-rgw ($(radosgw --version | cut -d' ' -f3), $store)'
export CEPH_CONTROL=${SELF@Q}
export CEPH_DIR=${DIR@Q}
EXPORTS
}

up() { [[ -f $DIR/settings ]] && alive mon && alive osd && alive gateway; }

wait_for() { # seconds what process command...
  local end=$(( SECONDS + $1 )) what=$2 name=$3; shift 3
  until "$@" >/dev/null 2>&1; do
    if ! alive "$name"; then tail -n 20 "$DIR/$name.out" >&2 || true; die "the $name ended while waiting for $what"; fi
    if (( SECONDS >= end )); then tail -n 20 "$DIR"/*.out >&2 || true; die "no answer in time: $what"; fi
    sleep 0.1
  done
}
quietly() { # name command...
  local name=$1; shift
  "$@" >>"$DIR/$name.out" 2>&1 || { tail -n 20 "$DIR/$name.out" >&2; die "failed: $1 $2"; }
}

lock() {
  exec 9>"$DIR/lock"
  flock -w 120 9 || die "another start or stop is under way"
}
wipe() {
  rm -rf "$DIR"/{run,log,crash,mon,osd,gateway,settings,settings.new,keyring,monmap,ceph.conf} "$DIR"/*.out "$DIR"/*.pid
}

start() {
  local tool
  for tool in ceph-mon ceph-osd radosgw radosgw-admin monmaptool ceph; do
    command -v "$tool" >/dev/null || die "missing $tool; run $HERE/install.sh"
  done
  umask 077
  (( ${#DIR} <= 80 )) || die "CEPH_DIR is too long for a unix socket path: $DIR"
  mkdir -p "$DIR"; [[ -O $DIR ]] || die "$DIR is not ours"
  lock
  if up; then exports; return; fi
  # Go on with the data there is when some of it still runs or CEPH_KEEP asks for it; else begin anew.
  local resume=0
  if [[ -f $DIR/settings ]] && { [[ ${CEPH_KEEP:-} == 1 ]] || alive mon || alive osd || alive gateway; }; then resume=1; fi
  if (( resume )) && grep -qx store=memstore "$DIR/settings" && ! alive osd; then resume=0; fi # its data died with it
  if (( ! resume )); then halt_all; halt_guard; wipe; fi
  mkdir -p "$DIR"/{run,log,crash,mon,osd,gateway}
  local fresh=0 gateway_port access_key secret_key
  trap 'say "start failed: stopping what was started"; halt_all; halt_guard' EXIT
  trap 'exit 130' INT TERM HUP
  if [[ ! -f $DIR/settings ]]; then
    fresh=1
    local store=${CEPH_STORE:-bluestore} size mon_port fsid
    case $store in
      bluestore) size=${CEPH_STORE_BYTES:-34359738368} ;;
      memstore) size=${CEPH_STORE_BYTES:-8589934592} ;;
      *) die "CEPH_STORE: bluestore or memstore, not $store" ;;
    esac
    # Drawn, not the first: that of another cluster looks free while its gateway is killed.
    gateway_port=${CEPH_PORT:-$(free_port $(( 10000 + RANDOM % 10000 )))}
    if busy "$gateway_port"; then die "port $gateway_port is taken"; fi
    mon_port=$(free_port $(( gateway_port + 10000 )))
    fsid=$(cat /proc/sys/kernel/random/uuid)
    sed -e "s|@DIR@|$DIR|g; s|@FSID@|$fsid|g; s|@MON_PORT@|$mon_port|g; s|@GATEWAY_PORT@|$gateway_port|g" \
      -e "s|@STORE@|$store|g; s|@STORE_BYTES@|$size|g; s|@QUOTA_BYTES@|$(( size * 4 / 5 ))|g" \
      "$HERE/ceph.conf" >"$CONF"
    : >"$DIR/keyring"
    printf 'gateway_port=%q\nstore=%q\naccess_key=%q\nsecret_key=%q\n' "$gateway_port" "$store" \
      "${CEPH_ACCESS_KEY:-test-access-key}" "${CEPH_SECRET_KEY:-test-secret-key}" >"$DIR/settings.new"
    quietly mon monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon_port]" "$DIR/monmap"
    quietly mon ceph-mon -c "$CONF" -i a --mkfs --monmap "$DIR/monmap"
  fi
  alive mon || spawn mon ceph-mon -f -c "$CONF" -i a
  if (( fresh )); then
    local osd_fsid; osd_fsid=$(cat /proc/sys/kernel/random/uuid)
    wait_for 30 'the monitor' mon timeout 10 ceph -c "$CONF" osd new "$osd_fsid"
    quietly osd ceph-osd -c "$CONF" -i 0 --mkfs --osd-uuid "$osd_fsid"
  fi
  alive osd || spawn osd ceph-osd -f -c "$CONF" -i 0
  alive gateway || spawn gateway radosgw -f -c "$CONF" -n client.rgw
  # shellcheck disable=SC1091
  if (( fresh )); then . "$DIR/settings.new"; else . "$DIR/settings"; fi
  wait_for 90 "the gateway on port $gateway_port" gateway http_ok "$gateway_port"
  if (( fresh )); then
    quietly admin radosgw-admin -c "$CONF" -n client.admin user create --uid=test --display-name=test --max-buckets=0 \
      --access-key="$access_key" --secret-key="$secret_key"
    mv "$DIR/settings.new" "$DIR/settings"
    if [[ -n ${CEPH_OWNER_PID:-} ]]; then guard "$CEPH_OWNER_PID"; fi
  fi
  trap - EXIT INT TERM HUP
  say "up in ${SECONDS} s"
  exports
}

restart() {
  [[ -f $DIR/settings ]] || die "nothing to restart in $DIR"
  CEPH_KEEP=1 start >/dev/null
}

stop() {
  [[ -d $DIR ]] || { say 'nothing to stop'; return; }
  [[ -O $DIR ]] || die "$DIR is not ours"
  lock
  halt_guard
  halt_all
  if [[ ${CEPH_KEEP:-} == 1 ]]; then say "stopped, data kept in $DIR"; return; fi
  wipe
  rm -f "$DIR/lock"
  rmdir "$DIR" 2>/dev/null || true
  say 'stopped'
}

thaw() {
  local name
  for name in gateway osd mon; do if alive "$name"; then kill -CONT "$(pid_of "$name")"; fi; done
}

case ${1:-} in
  start) start ;;
  restart) restart ;;
  stop) stop ;;
  status) if up; then exports; else echo stopped; exit 1; fi ;;
  kill-gateway | kill-osd | kill-mon) hit KILL "${1#kill-}" ;;
  freeze-gateway | freeze-osd) hit STOP "${1#freeze-}" ;;
  thaw) thaw ;;
  ceph) shift; exec ceph -c "$CONF" "$@" ;;
  *) sed -n '2,13p' "$SELF" >&2; exit 2 ;;
esac
