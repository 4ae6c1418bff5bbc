#!/usr/bin/env bash
# test.sh swift|fauxqs [arguments for vitest] - the tests that need no more than an S3 service, on one without conditional writes:
# installs it, starts it in a temporary directory, and leaves no process and no file behind. (Debian's packages stay.)
# Without arguments exactly those tests have to fail that swift.known or fauxqs.known explains.
set -euo pipefail
HERE=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")
service=$HERE/${1:-}.sh
[[ $# -gt 0 && $1 != test && -x $service ]] || { echo 'test.sh swift|fauxqs [arguments for vitest]' >&2; exit 2; }
known=$HERE/$1.known
shift
cd "$HERE/../.."
SERVICE_DIR=$(mktemp -d "${TMPDIR:-/tmp}/spillway-service-XXXXXX")
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
echo "test.sh: running on $S3_ENGINE at $S3_ENDPOINT" >&2
export PATH=$PWD/node_modules/.bin:$PATH S3_CONDITIONAL_WRITES=0
if [[ $# -gt 0 ]]; then
  vitest run --config "$HERE/vitest.config.ts" "$@"
else
  report=$SERVICE_DIR/report.json
  vitest run --config "$HERE/vitest.config.ts" --reporter=default --reporter=json --outputFile.json="$report" || true
  node "$HERE/compare.mjs" "$report" "$known"
fi
