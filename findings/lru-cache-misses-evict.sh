#!/usr/bin/env bash
# lru-cache-misses-evict.sh: in lru-cache a burst of fetches that bring nothing evicts as many entries, if the cache counts entries.
#
# cache.fetch(key) puts its unfinished promise into the cache, so that others wait for the same one. With `max` a promise takes a place,
# and the entry that was used longest ago is evicted for it at once. If the fetch then fails, or finds that there is no such value, the
# promise goes and its place is empty. So a hundred questions at once for what does not exist, or a store that fails for a moment,
# empty a cache of a hundred, and all that was hot is fetched again. Asked one after the other they evict one. With `maxSize` in
# bytes a promise counts as one byte, and the burst evicts one.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with lru-cache 11.5.3 on Node 20.20 and 26.10, 30 November 2026, of 100 entries after 100 fetches:
#   max, finds nothing or fails:     together 0 left, 100 evicted; one by one 99 left, 1 evicted
#   maxSize, finds nothing or fails: together 99 left, 1 evicted; one by one 99 left, 1 evicted
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent lru-cache@11.5.3 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { setImmediate as turn } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'

const count = 100
const page = new Uint8Array(65_536)
const limits = { max: { max: count }, maxSize: { maxSize: count * page.length, sizeCalculation: (value) => value.length } }
const fetchMethods = {
  'finds nothing': async () => {
    await turn()
    return undefined
  },
  fails: async () => {
    await turn()
    throw new Error('the store does not answer')
  },
}

async function look(limit, fetchMethod, together) {
  let evicted = 0
  const cache = new LRUCache({ ...limit, fetchMethod, dispose: (value, key, reason) => (evicted += reason === 'evict' ? 1 : 0) })
  for (let index = 0; index < count; index++) cache.set(`there ${index}`, page)
  const missing = Array.from({ length: count }, (_, index) => `missing ${index}`)
  if (together) await Promise.allSettled(missing.map((key) => cache.fetch(key)))
  else for (const key of missing) await cache.fetch(key).catch(() => {})
  return `${cache.size} left, ${evicted} evicted`
}

for (const [name, limit] of Object.entries(limits))
  for (const [what, fetchMethod] of Object.entries(fetchMethods))
    console.log(`${name}, ${what}: together ${await look(limit, fetchMethod, true)}; one by one ${await look(limit, fetchMethod, false)}`)
PROGRAM
result=$(node try.mjs) || exit 1
echo "$result"
expected='max, finds nothing: together 0 left, 100 evicted; one by one 99 left, 1 evicted
max, fails: together 0 left, 100 evicted; one by one 99 left, 1 evicted
maxSize, finds nothing: together 99 left, 1 evicted; one by one 99 left, 1 evicted
maxSize, fails: together 99 left, 1 evicted; one by one 99 left, 1 evicted'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
