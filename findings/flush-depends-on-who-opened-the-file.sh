#!/usr/bin/env bash
# flush-depends-on-who-opened-the-file.sh: fs.promises of Node ignores { flush: true } for a FileHandle, and Bun for each append.
#
# With { flush: true } writeFile and appendFile of node:fs shall flush what was written before they are done. In Node they do so for
# a path, with callbacks or synchronously for the number of a descriptor also; for a FileHandle the option is checked (a string is
# refused) and then forgotten, though the documentation of fsPromises.writeFile takes path and FileHandle and says that
# filehandle.sync() is used. In Bun the appends never flush, and neither does a promise with an iterable. Deno flushes always.
# Nothing is told: a journal that is appended to so need not be on the disk.
#
# Needs of Debian: strace. Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77
# where it cannot run.
# Seen with Node 26.10 (20.20 alike), Deno 2.9.6 and Bun 1.4.5 on Linux 6.18, 30 November 2026; which of 7 calls did not fsync:
#   node: writeFile(handle) appendFile(handle)
#   deno: none
#   bun:  appendFile(path) appendFile(handle) appendFile(descriptor) appendFileSync(path) writeFile(path, iterable)
set -u
command -v strace >/dev/null || { echo 'cannot run: no strace'; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module", "allowScripts": { "deno": true, "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent deno@2.9.6 bun@1.4.5 node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import fs from 'node:fs'
import { promisify } from 'node:util'

const [path, call] = process.argv.slice(-2)
const flush = { flush: true }
const opened = async (write) => {
  const handle = await fs.promises.open(path, 'a')
  await write(handle)
  await handle.close()
}
const calls = {
  'writeFile(path)': () => fs.promises.writeFile(path, 'page', flush),
  'writeFile(handle)': () => opened((handle) => fs.promises.writeFile(handle, 'page', flush)),
  'appendFile(path)': () => fs.promises.appendFile(path, 'page', flush),
  'appendFile(handle)': () => opened((handle) => fs.promises.appendFile(handle, 'page', flush)),
  'appendFile(descriptor)': () => promisify(fs.appendFile)(fs.openSync(path, 'a'), 'page', flush),
  'appendFileSync(path)': () => fs.appendFileSync(path, 'page', flush),
  'writeFile(path, iterable)': () => fs.promises.writeFile(path, ['pa', 'ge'], flush),
}
if (call === 'names') console.log(Object.keys(calls).join('\n'))
else {
  await calls[call]()
  if (fs.readFileSync(path, 'utf8') !== 'page') throw new Error('not what was written')
}
PROGRAM
names=$(node_modules/node/bin/node try.mjs path names) || exit 1

unflushed() {
  local missed='' call
  while read -r call; do
    rm -f written.bin
    strace -f -qq -y -e trace=fsync,fdatasync -o calls.txt "$@" try.mjs written.bin "$call" </dev/null || return 1
    grep -q 'written.bin' calls.txt || missed="$missed $call"
  done <<< "$names"
  echo "${missed:- none}"
}

node=$(unflushed node_modules/node/bin/node) || exit 1
deno=$(unflushed node_modules/.bin/deno run -A) || exit 1
bun=$(unflushed node_modules/.bin/bun) || exit 1
result="node:$node
deno:$deno
bun:$bun"
echo "$result"
expected='node: writeFile(handle) appendFile(handle)
deno: none
bun: appendFile(path) appendFile(handle) appendFile(descriptor) appendFileSync(path) writeFile(path, iterable)'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
