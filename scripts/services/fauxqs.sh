#!/usr/bin/env bash
# fauxqs.sh install|start|stop - the S3 emulator of npm's fauxqs, in SERVICE_DIR, on loopback and beside it. It ignores If-None-Match: *.
#
# `start` prints what a client has to be told, as shell assignments.
set -euo pipefail
: "${SERVICE_DIR:?where it lives}"
port=${SERVICE_PORT:-14566}
node=$(realpath -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")/../..")/node_modules/.bin/node

stop() {
  [[ -f $SERVICE_DIR/fauxqs.pid ]] || return 0
  kill -KILL "-$(<"$SERVICE_DIR/fauxqs.pid")" 2>/dev/null || true
  rm -f "$SERVICE_DIR/fauxqs.pid"
}

start() {
  cd "$SERVICE_DIR"
  cat >serve.mjs <<'JS'
import { startFauxqs } from 'fauxqs'
await startFauxqs({ port: Number(process.argv[2]), logger: false })
JS
  setsid "$node" serve.mjs "$port" >fauxqs.log 2>&1 </dev/null &
  echo $! >fauxqs.pid
  for _ in {1..600}; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "export S3_ENGINE=fauxqs S3_ENDPOINT=http://127.0.0.1:$port AWS_REGION=us-east-1"
      echo 'export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test S3_CONDITIONAL_WRITES=0'
      return
    fi
    kill -0 "$(<fauxqs.pid)" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 fauxqs.log >&2
  stop
  return 1
}

case ${1:-} in
  install) cd "$SERVICE_DIR" && npm install --no-audit --no-fund --ignore-scripts fauxqs@2.4.1 >&2 ;;
  start) start ;;
  stop) stop ;;
  *) echo 'fauxqs.sh install|start|stop' >&2; exit 2 ;;
esac
