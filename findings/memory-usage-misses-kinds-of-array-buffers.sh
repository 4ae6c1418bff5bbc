#!/usr/bin/env bash
# memory-usage-misses-kinds-of-array-buffers.sh: what process.memoryUsage() counts depends on how an ArrayBuffer was made.
#
# Node says of arrayBuffers that it is the memory of ArrayBuffers and SharedArrayBuffers, and is included in external. That holds for the
# plain ones only. A resizable ArrayBuffer is in external and not in arrayBuffers, a SharedArrayBuffer the other way round, and one
# that grows is in neither, as is the memory of WebAssembly. So no sum of the figures is the memory that a program holds in buffers. And
# what is not in external does not bring on a collection: 128 plain buffers of 8 MiB, each dropped at once, take 130 MiB at most, and as
# many shared ones 874 MiB (nodejs/node#34703). Deno has nothing in arrayBuffers. Bun has all in both.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with Node 26.10, Deno 2.9.6 and Bun 1.4.5 on Linux 6.18, 30 November 2026; MiB of 64 in external/arrayBuffers, where rss grows by 64:
#   node: plain 64/64, resizable 64/0, shared 0/64, growable 0/0, wasm 0/0; dropped ones collected: plain true, shared false
#   deno: plain 64/0, resizable 64/0, shared 0/0, growable 0/0, wasm 0/0
#   bun:  plain 64/64, resizable 64/64, shared 64/64, growable 64/64, wasm 64/64; dropped ones collected: plain true, shared true
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module", "allowScripts": { "deno": true, "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent deno@2.9.6 bun@1.4.5 node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import process from 'node:process'
import { setImmediate } from 'node:timers/promises'

const mebibyte = 2 ** 20
const kinds = {
  plain: (bytes) => new ArrayBuffer(bytes),
  resizable: (bytes) => new ArrayBuffer(bytes, { maxByteLength: bytes }),
  shared: (bytes) => new SharedArrayBuffer(bytes),
  growable: (bytes) => new SharedArrayBuffer(bytes, { maxByteLength: bytes }),
  wasm: (bytes) => new WebAssembly.Memory({ initial: bytes / 65_536 }).buffer,
}

const held = []
function look(kind) {
  const before = process.memoryUsage()
  const buffer = kinds[kind](64 * mebibyte)
  new Uint8Array(buffer).fill(1)
  held.push(buffer)
  const after = process.memoryUsage()
  const grown = (figure) => Math.round((after[figure] - before[figure]) / mebibyte)
  if (grown('rss') < 60) throw new Error(`rss grew by ${grown('rss')} MiB`)
  return `${kind} ${grown('external')}/${grown('arrayBuffers')}`
}

// Whether some of 1 GiB in buffers that nothing refers to is given back while they are made.
async function isCollected(kind) {
  let mostBytes = 0
  for (let count = 0; count < 128; count++) {
    new Uint8Array(kinds[kind](8 * mebibyte)).fill(1)
    await setImmediate()
    mostBytes = Math.max(mostBytes, process.memoryUsage().rss)
  }
  console.error(`${kind}: ${Math.round(mostBytes / mebibyte)} MiB`)
  return mostBytes < 700 * mebibyte
}

const [what] = process.argv.slice(-1)
if (what === 'figures') console.log(Object.keys(kinds).map(look).join(', '))
else console.log(`${what} ${await isCollected(what)}`)
PROGRAM
# Each in a process of its own, where nothing else is collected meanwhile.
collected() { echo "dropped ones collected: $("$@" try.mjs plain), $("$@" try.mjs shared)"; }
node=node_modules/node/bin/node
deno='node_modules/.bin/deno run -A'
bun=node_modules/.bin/bun
result="node: $($node try.mjs figures); $(collected $node)
deno: $($deno try.mjs figures)
bun: $($bun try.mjs figures); $(collected $bun)"
echo "$result"
expected='node: plain 64/64, resizable 64/0, shared 0/64, growable 0/0, wasm 0/0; dropped ones collected: plain true, shared false
deno: plain 64/0, resizable 64/0, shared 0/0, growable 0/0, wasm 0/0
bun: plain 64/64, resizable 64/64, shared 64/64, growable 64/64, wasm 64/64; dropped ones collected: plain true, shared true'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
