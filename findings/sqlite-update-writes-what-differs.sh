#!/usr/bin/env bash
# sqlite-update-writes-what-differs.sh: SQLite compares a blob that UPDATE gives with the one that is there, and writes what differs.
#
# A page of 64 KiB is a chain of sixteen small pages in the database. UPDATE, or INSERT … ON CONFLICT DO UPDATE, with a value of the same
# size reads the old chain and writes only the small pages that differ: none when the value is the same, one when a byte is. (Of UPDATE the
# release notes of 3.24 say so.) INSERT OR REPLACE, the usual way to put a value under a key, writes the whole chain each time and more,
# and so does UPDATE when the value is one byte longer. So a store of pages of fixed size writes one page or nineteen by the wording
# of one statement; and a page that is compressed first, and so changes its size, is written whole again.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with SQLite 3.53.4 in node:sqlite of Node 26.10, 30 November 2026; pages of 4096 bytes in the write-ahead log:
#   update: same 0, one byte changed 1, one byte longer 19
#   upsert: same 0, one byte changed 1, one byte longer 19
#   replace: same 19, one byte changed 19, one byte longer 19
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module", "allowScripts": { "node": true } }' > package.json
npm install --no-audit --no-fund --silent node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { Buffer } from 'node:buffer'
import { statSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'

const page = Buffer.from(Array.from({ length: 65_536 }, (_, index) => (index * 7) >> 3))
const changed = Buffer.from(page)
changed[40_000] ^= 255
const values = { same: page, 'one byte changed': changed, 'one byte longer': Buffer.concat([page, page.subarray(0, 1)]) }
const put = 'INSERT INTO pages VALUES (:id, :value)'
const statements = {
  update: 'UPDATE pages SET value = :value WHERE id = :id',
  upsert: `${put} ON CONFLICT (id) DO UPDATE SET value = excluded.value`,
  replace: 'INSERT OR REPLACE INTO pages VALUES (:id, :value)',
}

const database = new DatabaseSync('pages.db')
database.exec('PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE pages (id INTEGER PRIMARY KEY, value BLOB)')
let id = 0
function framesOf(statement, value) {
  id++
  database.prepare(put).run({ id, value: page })
  database.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  database.prepare(statement).run({ id, value })
  const { size } = statSync('pages.db-wal')
  const stored = database.prepare('SELECT value FROM pages WHERE id = ?').get(id).value
  if (!value.equals(stored)) throw new Error('not what was stored')
  return size === 0 ? 0 : (size - 32) / (4096 + 24)
}
for (const [name, statement] of Object.entries(statements))
  console.log(`${name}: ${Object.entries(values).map(([what, value]) => `${what} ${framesOf(statement, value)}`).join(', ')}`)
PROGRAM
result=$(node_modules/node/bin/node --no-warnings try.mjs) || exit 1
echo "$result"
expected='update: same 0, one byte changed 1, one byte longer 19
upsert: same 0, one byte changed 1, one byte longer 19
replace: same 19, one byte changed 19, one byte longer 19'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
