#!/usr/bin/env bash
# undici-cache-store-keeps-more-than-its-limit.sh: the memory cache of undici evicts nothing when each address has one answer.
#
# MemoryCacheStore takes `maxSize` in bytes. When it is exceeded, the store drops half of the entries of each address, rounded
# down: of one entry that is none. Entries of one address are its variants (`Vary`), and most addresses have one. So the store
# grows without a bound, says that it is full, tells `maxSizeExceeded` once, and goes on. With two variants of each address it
# drops one of them when it is over the limit, and keeps the other for ever: 50 addresses, half of the bytes.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with undici 7.30.2 on Node 20.20 and 26.10, 29 November 2026, 100 answers of 100,000 bytes under a limit of 1,048,576:
#   one answer for each address: 10000000 bytes are kept, full true, told 1 times, 0 of 100 are asked for again
#   two for each of 50 addresses: 5000000 bytes are kept, full true
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent undici@7.30.2 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { createServer } from 'node:http'
import { Agent, cacheStores, interceptors, request } from 'undici'

const maxSize = 1 << 20
let asked = 0
const server = createServer((_, response) => {
  asked++
  response.setHeader('cache-control', 'public, max-age=3600')
  response.setHeader('vary', 'x-variant')
  response.end(Buffer.alloc(100_000, 7))
}).listen(0, '127.0.0.1')
await new Promise((resolve) => server.once('listening', resolve))
const origin = `http://127.0.0.1:${server.address().port}`

async function look(variants) {
  const store = new cacheStores.MemoryCacheStore({ maxSize, maxEntrySize: 1 << 19 })
  let told = 0
  store.on('maxSizeExceeded', () => told++)
  const dispatcher = new Agent().compose(interceptors.cache({ store }))
  const round = async () => {
    const before = asked
    for (let index = 0; index < 100; index++) {
      const headers = { 'x-variant': String(index % variants) }
      const { body } = await request(`${origin}/${Math.floor(index / variants)}`, { dispatcher, headers })
      if ((await body.arrayBuffer()).byteLength !== 100_000) throw new Error('not what the server has')
    }
    return asked - before
  }
  await round()
  const { size } = store
  const isFull = store.isFull()
  const again = await round()
  await dispatcher.close()
  return { size, isFull, told, again }
}

const one = await look(1)
console.log(`one answer for each address: ${one.size} bytes are kept, full ${one.isFull}, told ${one.told} times, ${one.again} of 100 are asked for again`)
const two = await look(2)
console.log(`two for each of 50 addresses: ${two.size} bytes are kept, full ${two.isFull}`)
server.close()
PROGRAM
result=$(node try.mjs) || exit 1
echo "$result"
expected='one answer for each address: 10000000 bytes are kept, full true, told 1 times, 0 of 100 are asked for again
two for each of 50 addresses: 5000000 bytes are kept, full true'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
