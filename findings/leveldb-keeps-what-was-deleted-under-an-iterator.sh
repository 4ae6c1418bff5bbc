#!/usr/bin/env bash
# leveldb-keeps-what-was-deleted-under-an-iterator.sh: LevelDB keeps deleted values for ever if one iterator was open when it compacted.
#
# All of 32 MiB is deleted, and compactRange over all keys gives the disk back. If an iterator or a snapshot is open at that moment, the
# values stay, since it may read them. But they stay when it is closed, too: the compaction has put them, and the marks that delete
# them, into the last level that holds anything, and what is there is not compacted again on its own. Compacting thrice more, opening
# the store again, clear(): no key is there, and 32 MiB are. Only deleting each key once more, though none exists, and compacting then
# frees them.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with classic-level 3.0.0 (LevelDB 1.20) on Node 26.10, 30 November 2026; MiB on disk, of 32 that were deleted:
#   nothing open:  closed and compacted 0 0 0, opened again 0, cleared 0, keys 0, each deleted again 0
#   iterator open, snapshot open: closed and compacted 32 32 32, opened again 32, cleared 32, keys 0, each deleted again 0
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent classic-level@3.0.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { randomBytes } from 'node:crypto'
import { readdirSync, statSync } from 'node:fs'
import { ClassicLevel } from 'classic-level'

const keys = Array.from({ length: 512 }, (_, index) => String(index).padStart(6, '0'))

async function look(held) {
  const open = async () => {
    const database = new ClassicLevel(held, { valueEncoding: 'buffer', compression: false })
    await database.open()
    return database
  }
  const mebibytes = () => {
    const bytes = readdirSync(held).reduce((sum, name) => sum + statSync(`${held}/${name}`).size, 0)
    return Math.round(bytes / 1_048_576)
  }
  let database = await open()
  for (const key of keys) await database.put(key, randomBytes(65_536))
  const reader = held === 'nothing' ? undefined : database[held]()
  await reader?.next?.()
  for (const key of keys) await database.del(key)
  const compact = async () => {
    await database.compactRange('0', '9')
    return mebibytes()
  }
  await compact()
  await reader?.close()
  const lines = []
  for (let round = 0; round < 3; round++) lines.push(await compact())
  await database.close()
  database = await open()
  lines.push(await compact())
  await database.clear()
  lines.push(await compact())
  const count = (await database.keys().all()).length
  for (const key of keys) await database.del(key)
  const deletedAgain = await compact()
  await database.close()
  const closed = `closed and compacted ${lines.slice(0, 3).join(' ')}`
  return `${closed}, opened again ${lines[3]}, cleared ${lines[4]}, keys ${count}, each deleted again ${deletedAgain}`
}

for (const held of ['nothing', 'iterator', 'snapshot']) console.log(`${held} open: ${await look(held)}`)
PROGRAM
result=$(node try.mjs) || exit 1
echo "$result"
kept='closed and compacted 32 32 32, opened again 32, cleared 32, keys 0, each deleted again 0'
expected="nothing open: ${kept//32/0}
iterator open: $kept
snapshot open: $kept"
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
