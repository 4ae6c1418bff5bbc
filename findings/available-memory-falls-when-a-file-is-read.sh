#!/usr/bin/env bash
# available-memory-falls-when-a-file-is-read.sh: in a container, what a process may still take is less after it read a file.
#
# process.availableMemory() of Node is the limit of the control group less what is charged to it. The page cache of the files that the
# group has read is charged, though the system gives it up as soon as memory is wanted: after reading a file of 300 MiB, 300 MiB less are
# "available", and taking more than that works. A pool that sizes itself by it shrinks because its own backing file is cached.
# Bun and Deno do not look at the group: with a limit of 512 MiB they call the free memory of the whole machine available, while
# process.constrainedMemory() of the same process says 512 MiB.
#
# Needs root and the memory controller of control groups, version 1 or 2. Nothing of Spillway runs.
# Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with Node 26.10, Bun 1.4.5 and Deno 2.9.6 on Linux 6.18, control groups version 1, 30 November 2026:
#   node: limit 512 MiB, available within the limit, 300 MiB less after 300 MiB were read; then 400 MiB are had (502, then 201)
#   bun, deno: limit 512 MiB, available above the limit (16 GiB)
set -u
scratch=$(mktemp -d)
group=''
finish() { [ -n "$group" ] && rmdir "$group" 2>/dev/null; rm -rf "$scratch"; }
trap finish EXIT
cannot() { echo "cannot run: $*"; exit 77; }
[ "$(id -u)" = 0 ] || cannot 'not root'
if [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
  group=/sys/fs/cgroup/memory/findings.$$ limit=memory.limit_in_bytes
elif grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
  group=/sys/fs/cgroup/findings.$$ limit=memory.max
else
  cannot 'no memory controller'
fi
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module", "allowScripts": { "deno": true, "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent deno@2.9.6 bun@1.4.5 node@26.10.0 || cannot 'npm install'
mkdir "$group" 2>/dev/null && echo 512M > "$group/$limit" || cannot 'a control group with a limit'
cat > try.mjs <<'PROGRAM'
import { Buffer } from 'node:buffer'
import * as fs from 'node:fs'

const mebibyte = 1 << 20
const available = () => Math.round(process.availableMemory() / mebibyte)
const limit = Math.round(process.constrainedMemory() / mebibyte)
const first = available()
const file = fs.openSync('file', 'r')
const page = Buffer.alloc(mebibyte)
while (fs.readSync(file, page, 0, page.length, null) > 0);
const then = available()
const taken = Buffer.alloc(400 * mebibyte, 7)
const change = Math.abs(first - then - 300) < 60 ? '300 MiB less' : 'about as much'
console.error(`${first} MiB available, ${then} after reading`)
console.log(
  `limit ${limit} MiB, available ${first <= limit ? 'within' : 'above'} the limit` +
    (first <= limit ? `, ${change} after 300 MiB were read; then ${taken.length / mebibyte} MiB are had` : ''),
)
PROGRAM
# Each has a file of its own, which nobody has read.
in_group() {
  head -c 300M /dev/zero > file
  sync file
  dd if=file iflag=nocache count=0 status=none
  (sh -c "echo \$PPID" > "$group/cgroup.procs"; exec "$@")
  rm file
}
result="node: $(in_group node_modules/node/bin/node try.mjs)
bun:  $(in_group node_modules/.bin/bun try.mjs)
deno: $(in_group node_modules/.bin/deno run -A try.mjs)"
echo "$result"
expected='node: limit 512 MiB, available within the limit, 300 MiB less after 300 MiB were read; then 400 MiB are had
bun:  limit 512 MiB, available above the limit
deno: limit 512 MiB, available above the limit'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
