#!/usr/bin/env bash
# node-cache-makes-objects-of-typed-arrays.sh: a page that node-cache keeps as Uint8Array takes nine times its bytes and is none when it comes back.
#
# node-cache gives copies of what it keeps (useClones, the default), made by the package clone. The copy of a Uint8Array or a Float64Array is
# an object with its prototype and a property for each element: instanceof says true, [index] works, but length, slice, iteration and
# Buffer.from throw TypeError. A page of 64 KiB takes 600 KB of the heap instead of 64 KiB outside, each get copies
# it again, and the statistics count 80 bytes for a byte. The same bytes in a Buffer are copied as one. (Known of clone: pvorb/clone#69.)
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with node-cache 5.1.2 on Node 20.20 and 26.10, 30 November 2026, pages of 65,536 bytes:
#   Buffer:     instanceof true, view true, last 7, length 65536, slice 1, counted 65536; on the heap less than a tenth of the page
#   Uint8Array: instanceof true, view false, last 7, length TypeError, slice TypeError, counted 5242880; more than 4 pages (611 KB)
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent node-cache@5.1.2 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import NodeCache from 'node-cache'

const pageSize = 65_536
const pages = { Buffer: Buffer.alloc(pageSize, 7), Uint8Array: new Uint8Array(pageSize).fill(7) }
const outcome = (look) => {
  try {
    return look()
  } catch ({ name }) {
    return name
  }
}

function heapBytesOf(page) {
  const cache = new NodeCache({ checkperiod: 0 })
  globalThis.gc()
  const before = process.memoryUsage().heapUsed
  for (let key = 0; key < 50; key++) cache.set(key, page)
  globalThis.gc()
  const bytes = (process.memoryUsage().heapUsed - before) / cache.keys().length
  console.error(`${Math.round(bytes)} bytes of heap for each page`)
  return bytes > 4 * pageSize ? 'more than 4 pages' : bytes < pageSize / 10 ? 'less than a tenth of the page' : bytes
}

for (const [kind, page] of Object.entries(pages)) {
  const cache = new NodeCache({ checkperiod: 0 })
  cache.set('page', page)
  const got = cache.get('page')
  const isView = `instanceof ${got instanceof Uint8Array}, view ${ArrayBuffer.isView(got)}, last ${got[pageSize - 1]}`
  const use = `length ${outcome(() => got.length)}, slice ${outcome(() => got.slice(0, 1).length)}`
  console.log(`${kind}: ${isView}, ${use}, counted ${cache.getStats().vsize}; on the heap ${heapBytesOf(page)}`)
}
PROGRAM
result=$(node --expose-gc try.mjs) || exit 1
echo "$result"
expected='Buffer: instanceof true, view true, last 7, length 65536, slice 1, counted 65536; on the heap less than a tenth of the page
Uint8Array: instanceof true, view false, last 7, length TypeError, slice TypeError, counted 5242880; on the heap more than 4 pages'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
