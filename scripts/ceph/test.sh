#!/usr/bin/env bash
# test.sh - the S3 tests on a real distributed store: installs Ceph where it is missing, starts a cluster in a temporary
# directory, runs the tests that need a service and the scenarios in which its daemons are killed, and leaves nothing
# behind: no process, no file, however it ends. (The Debian packages stay.)
#
#   test.sh [arguments for vitest]      CEPH_STORE=memstore for a quick cluster, on which the scenarios cannot run
set -euo pipefail
HERE=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")
ROOT=$(realpath -- "$HERE/../..")
cd "$ROOT"
"$HERE/install.sh"

base=${TMPDIR:-/tmp}
(( ${#base} <= 40 )) || base=/tmp # unix sockets take short paths only
CEPH_DIR=$(mktemp -d "$base/spillway-ceph-XXXXXX")
export CEPH_DIR CEPH_OWNER_PID=$$ CEPH_KEEP=
export CEPH_STORE_BYTES=${CEPH_STORE_BYTES:-8589934592}
tests=
# shellcheck disable=SC2317 # called by the trap
clean() {
  trap '' INT TERM HUP
  if [[ -n $tests ]] && kill -0 "$tests" 2>/dev/null; then kill -TERM "$tests" 2>/dev/null || true; wait "$tests" || true; fi
  "$HERE/cluster.sh" stop
  rm -rf -- "$CEPH_DIR"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

# Not `eval "$(…)"`: that would hide a start that failed.
settings=$("$HERE/cluster.sh" start)
eval "$settings"
echo "test.sh: running on $S3_ENGINE at $S3_ENDPOINT" >&2
# memstore forgets everything with its daemon
if [[ ${CEPH_STORE:-} == memstore ]]; then set -- --exclude '**/*.scenario.ts' "$@"; fi
PATH=$ROOT/node_modules/.bin:$PATH setpriv --pdeathsig TERM vitest run --config "$HERE/vitest.config.ts" "$@" &
tests=$!
status=0
wait "$tests" || status=$?
tests=
exit "$status"
