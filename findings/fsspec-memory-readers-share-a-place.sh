#!/usr/bin/env bash
# fsspec-memory-readers-share-a-place.sh: who opens a file of fsspec in memory moves the place of all that read it.
#
# fsspec gives local disks, object stores and memory one interface, and programs are tested with memory to run with the others.
# open() of a local file gives each reader a place of its own. In memory it gives everybody the same object: opening it again sets
# the first reader back to the beginning, and each goes on where the other stopped, so of two that read in turn each gets the half of
# what comes. One that opens it to write a part leaves the reader behind that part, and bytes that were written and not flushed are read at once.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with fsspec 2026.9.0 on Python 3.11, 30 November 2026; of the file 0123456789, two bytes at a time:
#   file:   first 01 23 45, second 01 23; a reader at 4 after a write at 6 reads 45, unflushed seen False
#   memory: first 01 01 45, second 23 67; a reader at 4 after a write at 6 reads 78, unflushed seen True
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
python3 -m venv environment >/dev/null && environment/bin/pip install -qqq --disable-pip-version-check fsspec==2026.9.0 2>/dev/null ||
  { echo 'cannot run: pip install'; exit 77; }
cat > try.py <<'PROGRAM'
import os
import fsspec

def look(kind, place):
    files = fsspec.filesystem(kind)
    files.pipe_file(place, b'0123456789')
    first = files.open(place, 'rb')
    a = [first.read(2)]
    second = files.open(place, 'rb')
    b = []
    for _ in range(2):
        a.append(first.read(2))
        b.append(second.read(2))
    # A third party writes a part while the first reader is at a place.
    reader = files.open(place, 'rb')
    reader.seek(4)
    writer = files.open(place, 'r+b')
    writer.seek(6)
    writer.write(b'W')
    seen = b'W' in files.cat_file(place)
    after = reader.read(2)
    writer.close()
    text = lambda pieces: ' '.join(piece.decode() for piece in pieces)
    return f'{kind}: first {text(a)}, second {text(b)}; a reader at 4 after a write at 6 reads {after.decode()}, unflushed seen {seen}'

print(look('file', os.path.abspath('pages')))
print(look('memory', '/pages'))
PROGRAM
result=$(environment/bin/python try.py) || exit 1
echo "$result"
expected='file: first 01 23 45, second 01 23; a reader at 4 after a write at 6 reads 45, unflushed seen False
memory: first 01 01 45, second 23 67; a reader at 4 after a write at 6 reads 78, unflushed seen True'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
