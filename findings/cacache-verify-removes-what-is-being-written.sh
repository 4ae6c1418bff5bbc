#!/usr/bin/env bash
# cacache-verify-removes-what-is-being-written.sh: writes to a cacache that are under way while it is verified are lost.
#
# cacache, the store of npm, says of itself "Lockless, high-concurrency cache access". verify(), its collection of garbage, also removes
# the whole folder of temporary files, where each write lives until it is whole. A write that was begun before and ends after fails
# with the code EEXIST, though what is missing is its own temporary file and its value is not in the cache. In a store that is
# addressed by content EEXIST otherwise means that there is nothing to do.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with cacache 21.0.2 on Node 20.20 and 26.10, 30 November 2026:
#   nothing meanwhile: written, then 131072 bytes
#   verify meanwhile: code EEXIST (ENOENT: no such file or directory), then ENOENT
#   put meanwhile: written, then 131072 bytes
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent cacache@21.0.2 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { setTimeout as wait } from 'node:timers/promises'
import cacache from 'cacache'

const cache = './cache'
const page = (value) => Buffer.alloc(65_536, value)
async function write(key, value, between) {
  const stream = cacache.put.stream(cache, key)
  const ended = new Promise((resolve) => {
    stream.on('finish', () => resolve('written'))
    stream.on('error', ({ code, message }) => resolve(`code ${code} (${message.slice(0, message.indexOf(','))})`))
  })
  stream.write(page(value))
  await wait(300)
  await between()
  stream.end(page(value))
  const outcome = await ended
  const found = await cacache.get(cache, key, { memoize: false }).then(({ data }) => `${data.length} bytes`, ({ code }) => code)
  return `${outcome}, then ${found}`
}
await cacache.put(cache, 'old', page(1))
console.log(`nothing meanwhile: ${await write('first', 2, () => {})}`)
console.log(`verify meanwhile: ${await write('second', 3, () => cacache.verify(cache))}`)
console.log(`put meanwhile: ${await write('third', 4, () => cacache.put(cache, 'other', page(5)))}`)
PROGRAM
result=$(node try.mjs) || exit 1
echo "$result"
expected='nothing meanwhile: written, then 131072 bytes
verify meanwhile: code EEXIST (ENOENT: no such file or directory), then ENOENT
put meanwhile: written, then 131072 bytes'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
