#!/usr/bin/env bash
# test.sh swift|fauxqs [arguments for vitest] - the tests that need no more than an S3 service, on one without conditional writes.
# Without arguments exactly those tests have to fail that swift.known or fauxqs.known explains.
set -euo pipefail
HERE=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")
known=$HERE/${1:-}.known
[[ $# -gt 0 && -f $known ]] || { echo 'test.sh swift|fauxqs [arguments for vitest]' >&2; exit 2; }
service=$1
shift
cd "$HERE/../.."
if [[ $# -gt 0 ]]; then exec "$HERE/with.sh" "$service" vitest run --config "$HERE/vitest.config.ts" "$@"; fi
report=$(mktemp)
trap 'rm -f -- "$report"' EXIT
"$HERE/with.sh" "$service" vitest run --config "$HERE/vitest.config.ts" \
  --reporter=default --reporter=json --outputFile.json="$report" || true
[[ -s $report ]] || { echo 'test.sh: no test has run' >&2; exit 1; }
PATH=$PWD/node_modules/.bin:$PATH node "$HERE/compare.mjs" "$report" "$known"
