#!/usr/bin/env bash
# with.sh swift|fauxqs|ceph COMMAND… - runs a command while an S3 service runs, which S3_ENDPOINT and the other variables of
# packages/test-s3-server/src/target.ts name. Installs it, starts it in a temporary directory (SERVICE_DIR, which the
# command may use), and leaves no process and no file behind. (Debian's packages stay.)
set -euo pipefail
HERE=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")
case ${1:-} in
  swift | fauxqs | ceph) service=$HERE/$1.sh; shift ;;
  *) set -- ;;
esac
(( $# > 0 )) || { echo 'with.sh swift|fauxqs|ceph COMMAND…' >&2; exit 2; }
# Short, for the sockets of Ceph.
SERVICE_DIR=$(mktemp -d /tmp/spillway-service-XXXXXX)
export SERVICE_DIR
# shellcheck disable=SC2317 # called by the trap
clean() {
  trap '' INT TERM HUP
  "$service" stop
  rm -rf -- "$SERVICE_DIR"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

"$service" install
# Not `eval "$(…)"`: that would hide a start that failed.
settings=$("$service" start)
eval "$settings"
echo "with.sh: $S3_ENGINE runs at $S3_ENDPOINT" >&2
export PATH=$HERE/../../node_modules/.bin:$PATH
"$@"
