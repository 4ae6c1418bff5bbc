#!/usr/bin/env bash
# swift.sh install|start|stop - OpenStack Swift with its S3 interface, in SERVICE_DIR, on loopback, as the user who calls, from the packages of
# Debian. It refuses If-None-Match: *.
#
# `start` prints what a client has to be told, as shell assignments. One copy of everything: for tests only.
set -euo pipefail
: "${SERVICE_DIR:?where it lives}"
port=${SERVICE_PORT:-18180}
daemons=(account container object proxy cache)

stop() {
  local name pid
  for name in "${daemons[@]}"; do
    [[ -f $SERVICE_DIR/$name.pid ]] || continue
    pid=$(<"$SERVICE_DIR/$name.pid")
    kill -TERM "-$pid" 2>/dev/null || true
    for _ in {1..50}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "-$pid" 2>/dev/null || true
    rm -f "$SERVICE_DIR/$name.pid"
  done
}

configure() {
  local name number=1 daemon_port
  mkdir -p "$SERVICE_DIR/devices/d1"
  printf '[swift-hash]\nswift_hash_path_suffix = tests\nswift_hash_path_prefix = tests\n' >"$SERVICE_DIR/swift.conf"
  for name in account container object; do
    daemon_port=$((port + number))
    number=$((number + 1))
    cat >"$SERVICE_DIR/$name-server.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $daemon_port
swift_dir = $SERVICE_DIR
devices = $SERVICE_DIR/devices
mount_check = false
user = $(id -un)
workers = 0
fallocate_reserve = 0
[pipeline:main]
pipeline = $name-server
[app:$name-server]
use = egg:swift#$name
CONF
    (
      cd "$SERVICE_DIR"
      swift-ring-builder "$name.builder" create 4 1 0
      swift-ring-builder "$name.builder" add "r1z1-127.0.0.1:$daemon_port/d1" 1
      swift-ring-builder "$name.builder" rebalance
    ) >"$SERVICE_DIR/$name-ring.log"
  done
  cat >"$SERVICE_DIR/proxy-server.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $port
swift_dir = $SERVICE_DIR
user = $(id -un)
workers = 0
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
# Its own timeouts, half a second to connect, are short for a busy machine.
conn_timeout = 10
node_timeout = 60
recoverable_node_timeout = 60
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$((port + 4))
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
CONF
}

start() {
  local name
  configure
  setsid memcached -l 127.0.0.1 -p "$((port + 4))" -u "$(id -un)" >"$SERVICE_DIR/cache.log" 2>&1 </dev/null &
  echo $! >"$SERVICE_DIR/cache.pid"
  for name in account container object proxy; do
    setsid "swift-$name-server" "$SERVICE_DIR/$name-server.conf" >"$SERVICE_DIR/$name.log" 2>&1 </dev/null &
    echo $! >"$SERVICE_DIR/$name.pid"
  done
  for _ in {1..900}; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "export S3_ENGINE='OpenStack Swift' S3_ENDPOINT=http://127.0.0.1:$port AWS_REGION=us-east-1"
      echo "export AWS_ACCESS_KEY_ID=test:tester AWS_SECRET_ACCESS_KEY=testing S3_CONDITIONAL_WRITES=0"
      return
    fi
    kill -0 "$(<"$SERVICE_DIR/proxy.pid")" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$SERVICE_DIR"/*.log >&2
  stop
  return 1
}

install() {
  local tool
  for tool in swift-proxy-server swift-account-server swift-container-server swift-object-server swift-ring-builder memcached; do
    command -v "$tool" >/dev/null && continue
    local as_root=()
    if (( $(id -u) != 0 )); then as_root=(sudo); fi
    export DEBIAN_FRONTEND=noninteractive
    echo 'swift.sh: installing swift and memcached' >&2
    "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
    "${as_root[@]}" apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
      install --no-install-recommends swift-proxy swift-account swift-container swift-object memcached >&2
    return
  done
}

case ${1:-} in
  install) install ;;
  start) start ;;
  stop) stop ;;
  *) echo 'swift.sh install|start|stop' >&2; exit 2 ;;
esac
