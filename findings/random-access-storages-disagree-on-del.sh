#!/usr/bin/env bash
# random-access-storages-disagree-on-del.sh: what `del` means depends on which storage of random-access-storage is behind it.
#
# random-access-memory and random-access-file have one interface, and programs are tested with the first to run with the second.
# In the file, deleted bytes in the middle are zeros at once and their blocks are free. In memory the same call keeps every byte
# unless it covers a whole page of 1 MiB: what was deleted is read again. And a `del` that begins inside and reaches past the end
# makes the memory shorter, while the file keeps its size.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with random-access-file 4.1.2 and random-access-memory 6.2.1 on Node 20.20 and 26.10, ext4, 29 November 2026:
#   memory: 0 of 81920 deleted bytes are zero; of a whole page 1048576 of 1048576; 3145728 bytes are 3141632 after a del past the end
#   file: 81920 of 81920 deleted bytes are zero; of a whole page 1048576 of 1048576; 3145728 bytes are 3145728 after a del past the end
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent random-access-file@4.1.2 random-access-memory@6.2.1 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { promisify } from 'node:util'
import RandomAccessFile from 'random-access-file'
import RandomAccessMemory from 'random-access-memory'

const mebibyte = 1 << 20

async function look(storage) {
  const call = (method, ...values) => promisify(storage[method].bind(storage))(...values)
  const zerosIn = async (offset, length) => {
    const bytes = await call('read', offset, length)
    return `${bytes.filter((byte) => byte === 0).length} of ${length}`
  }
  await call('write', 0, Buffer.alloc(3 * mebibyte, 7))
  await call('del', 40_960, 81_920)
  const middle = await zerosIn(40_960, 81_920)
  await call('del', mebibyte, mebibyte)
  const whole = await zerosIn(mebibyte, mebibyte)
  const before = (await call('stat')).size
  await call('del', before - 4096, 8192)
  const { size } = await call('stat')
  await call('close')
  return `${middle} deleted bytes are zero; of a whole page ${whole}; ${before} bytes are ${size} after a del past the end`
}

console.log(`memory: ${await look(new RandomAccessMemory())}`)
console.log(`file: ${await look(new RandomAccessFile('./pages'))}`)
PROGRAM
result=$(node try.mjs) || exit 1
echo "$result"
expected='memory: 0 of 81920 deleted bytes are zero; of a whole page 1048576 of 1048576; 3145728 bytes are 3141632 after a del past the end
file: 81920 of 81920 deleted bytes are zero; of a whole page 1048576 of 1048576; 3145728 bytes are 3145728 after a del past the end'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
