#!/usr/bin/env bash
# memfs-inode-of-an-open-file.sh: memfs gives the inode number of a file that is open to another file.
#
# On a real file system a file that was unlinked keeps its inode, and so its number, until the last descriptor is closed: (device, inode)
# tells whether two descriptors are of one file. memfs takes the number back when the name goes. The next file gets it while the
# first can still be read and written through its descriptor, so two open files with different bytes have the same device and inode.
# Renaming over an open file leaves its link count at 1.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with memfs 4.80.1 on Node 26.10, 28 November 2026:
#   real:  same inode false, links of the unlinked file 0, of the one renamed over 0
#   memfs: same inode true, links of the unlinked file 0, of the one renamed over 1
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent memfs@4.80.1 || { echo 'cannot run: npm install'; exit 77; }
mkdir real
cat > try.mjs <<'PROGRAM'
import * as realFs from 'node:fs'
import { createFsFromVolume, Volume } from 'memfs'

function look(fs, folder) {
  const write = (name, text) => {
    const fd = fs.openSync(`${folder}/${name}`, 'w+')
    fs.writeSync(fd, text)
    return fd
  }
  const textOf = (fd) => {
    const bytes = Buffer.alloc(5)
    return bytes.toString('utf8', 0, fs.readSync(fd, bytes, 0, 5, 0))
  }
  const first = write('first', 'first')
  fs.unlinkSync(`${folder}/first`)
  const other = write('other', 'other')
  const [one, two] = [fs.fstatSync(first), fs.fstatSync(other)]
  if (textOf(first) !== 'first' || textOf(other) !== 'other') throw new Error('not the bytes that were written')
  const below = write('below', 'below')
  fs.closeSync(write('above', 'above'))
  fs.renameSync(`${folder}/above`, `${folder}/below`)
  const same = one.ino === two.ino && one.dev === two.dev
  return `same inode ${same}, links of the unlinked file ${one.nlink}, of the one renamed over ${fs.fstatSync(below).nlink}`
}

console.log(`real:  ${look(realFs, 'real')}`)
const volume = createFsFromVolume(new Volume())
volume.mkdirSync('/memory')
console.log(`memfs: ${look(volume, '/memory')}`)
PROGRAM
result=$(node try.mjs) || exit 1
echo "$result"
expected='real:  same inode false, links of the unlinked file 0, of the one renamed over 0
memfs: same inode true, links of the unlinked file 0, of the one renamed over 1'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
