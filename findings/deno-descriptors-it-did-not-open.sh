#!/usr/bin/env bash
# deno-descriptors-it-did-not-open.sh: node:fs of Deno refuses descriptors that Deno did not open.
#
# A descriptor that a process inherits, or that native code opened (memfd_create, io_uring, a library), is a number that node:fs of Node
# and Bun reads, writes and cuts. Deno keeps a table of its own: each such call is EBADF, though the descriptor is open. Opening it
# again by its name in /proc/self/fd works.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with Deno 2.9.6, Bun 1.4.5 and Node 26.10 on Linux 6.18, 28 November 2026:
#   node: fstat ok, write ok, read ok, cut ok, reopened ok
#   bun:  fstat ok, write ok, read ok, cut ok, reopened ok
#   deno: fstat EBADF, write EBADF, read EBADF, cut EBADF, reopened ok
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
[ -d /proc/self/fd ] || { echo 'cannot run: no /proc'; exit 77; }
echo '{ "private": true, "type": "module", "allowScripts": { "deno": true, "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent deno@2.9.6 bun@1.4.5 node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import * as fs from 'node:fs'

const inherited = 7
const outcome = (name, call) => {
  try {
    call()
    return `${name} ok`
  } catch (failure) {
    return `${name} ${failure.code ?? failure.name}`
  }
}
console.log(
  [
    outcome('fstat', () => fs.fstatSync(inherited)),
    outcome('write', () => fs.writeSync(inherited, Buffer.from('hello'), 0, 5, 0)),
    outcome('read', () => fs.readSync(inherited, Buffer.alloc(5), 0, 5, 0)),
    outcome('cut', () => fs.ftruncateSync(inherited, 3)),
    outcome('reopened', () => fs.closeSync(fs.openSync(`/proc/self/fd/${inherited}`, 'r+'))),
  ].join(', '),
)
PROGRAM
touch file
result="node: $(node_modules/node/bin/node try.mjs 7<>file)
bun:  $(node_modules/.bin/bun try.mjs 7<>file)
deno: $(node_modules/.bin/deno run -A try.mjs 7<>file)"
echo "$result"
expected='node: fstat ok, write ok, read ok, cut ok, reopened ok
bun:  fstat ok, write ok, read ok, cut ok, reopened ok
deno: fstat EBADF, write EBADF, read EBADF, cut EBADF, reopened ok'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
