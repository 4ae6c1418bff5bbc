#!/usr/bin/env bash
# abort-listeners-are-quadratic.sh: n listeners on one AbortSignal cost n² steps, in Node and in Bun.
#
# Each listener that is added is compared with all that are there, because a listener is added once. A server that gives one signal for
# shutdown to each of its waiting calls pays for it: 32,000 waiting calls cost half a minute of processor time in Node.
#
# Measures processor time, growing from 2,000 to 8,000: 4 is in proportion, 16 is quadratic. Nothing of Spillway runs.
# Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with Node 26.10 and Bun 1.4.5, 28 November 2026:
#   node: quadratic, bun: quadratic (more than 8 times)
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module", "allowScripts": { "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent bun@1.4.5 node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { setMaxListeners } from 'node:events'

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1]
const cost = (work) =>
  median(
    Array.from({ length: 3 }, () => {
      const { signal } = new AbortController()
      setMaxListeners(0, signal)
      const before = process.cpuUsage()
      work(signal)
      const { user, system } = process.cpuUsage(before)
      return (user + system) / 1000
    }),
  )
const listeners = (count) =>
  cost((signal) => {
    for (let index = 0; index < count; index++) signal.addEventListener('abort', () => {}, { once: true })
  })
const grows = (measure) => {
  measure(1000)
  return measure(8000) / Math.max(0.5, measure(2000))
}
const growth = grows(listeners)
console.error(`${growth.toFixed(1)} times`)
console.log(growth > 8 ? 'quadratic' : 'in proportion')
PROGRAM
result="node: $(node_modules/node/bin/node try.mjs)
bun:  $(node_modules/.bin/bun try.mjs)"
echo "$result"
expected='node: quadratic
bun:  quadratic'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
