#!/usr/bin/env bash
# readv-stops-where-writev-goes-on.sh: what writev writes in one call, readv of Node and Bun reads in three.
#
# Linux takes 1,024 buffers a call. Given more, fs.writev makes as many calls as it needs, in Node, Bun and Deno, and all of it is
# written. fs.readv of the same list reads the first 1,024 buffers in Node and Bun and resolves: the others are as they were, the file
# goes on, and nothing but the count tells. So what gathers pages with one call for its size and reads them back with the same list gets
# old bytes from the 1,025th on, and only when the list is that long. In Deno both go on to the end.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with Node 26.10, Bun 1.4.5 and Deno 2.9.6 on Linux 6.18, 30 November 2026, for 3000 buffers of 4096 bytes:
#   node, bun: writev 3000, readvSync 1024, readv 1024, handle.readv 1024
#   deno:      writev 3000, readvSync 3000, readv 3000, handle.readv 3000
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
[ "$(uname)" = Linux ] || { echo 'cannot run: not Linux'; exit 77; }
echo '{ "private": true, "type": "module", "allowScripts": { "deno": true, "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent deno@2.9.6 bun@1.4.5 node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { Buffer } from 'node:buffer'
import * as fs from 'node:fs'
import { promisify } from 'node:util'

const pageBytes = 4096
const pages = Array.from({ length: 3000 }, (_, index) => Buffer.alloc(pageBytes, index % 251))
const file = await fs.promises.open('pages', 'w+')
await file.writev(pages, 0)
const written = (await file.stat()).size / pageBytes

// How many buffers hold what was written, after a call that says how many bytes it read.
async function read(call) {
  const buffers = pages.map(() => Buffer.alloc(pageBytes, 255))
  const bytes = await call(buffers)
  const right = buffers.filter((buffer, index) => buffer.equals(pages[index])).length
  if (right !== bytes / pageBytes) throw new Error(`${bytes} bytes read, ${right} buffers right`)
  return right
}
const sync = await read((buffers) => fs.readvSync(file.fd, buffers, 0))
const callback = await read((buffers) => promisify((done) => fs.readv(file.fd, buffers, 0, (error, bytes) => done(error, bytes)))())
const handle = await read(async (buffers) => (await file.readv(buffers, 0)).bytesRead)
await file.close()
console.log(`writev ${written}, readvSync ${sync}, readv ${callback}, handle.readv ${handle}`)
PROGRAM
result="node: $(node_modules/node/bin/node try.mjs)
bun:  $(node_modules/.bin/bun try.mjs)
deno: $(node_modules/.bin/deno run -A try.mjs)"
echo "$result"
expected='node: writev 3000, readvSync 1024, readv 1024, handle.readv 1024
bun:  writev 3000, readvSync 1024, readv 1024, handle.readv 1024
deno: writev 3000, readvSync 3000, readv 3000, handle.readv 3000'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
