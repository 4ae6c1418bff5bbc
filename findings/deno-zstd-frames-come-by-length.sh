#!/usr/bin/env bash
# deno-zstd-frames-come-by-length.sh: in Deno, what stands behind a frame of Zstandard is read only if the frame holds n × 16 KiB.
#
# A Zstandard file is any number of frames one after the other, and a decoder gives the content of all and passes over those that are marked
# as skippable (RFC 8878, 3.1): so appending to a file works, and so does pzstd, which writes a skippable frame before each. node:zlib
# of Deno ends after a frame, without an error, unless its content fills the last chunk of 16,384 bytes just then: three frames of 65,536
# bytes are three, and three of 65,535 are one. Behind a skippable frame, which has no content, nothing comes: a file of
# pzstd is empty. Written byte by byte to createZstdDecompress all of them come, so it also depends on how a network cuts the file.
# gunzipSync of Deno gives all members. (Something like it was reported of Node 26.5: nodejs/node#64741.)
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with Deno 2.9.6, Node 26.10 and Bun 1.4.5, 30 November 2026; frames that come of 3 frames, read sync, async, as a stream, byte by byte:
#   node, bun: of 65536 bytes 3 3 3 3, of 65535 bytes 3 3 3 3, skippable first 3 3 3 3; gzip of 65535 bytes 3
#   deno:      of 65536 bytes 3 3 3 3, of 65535 bytes 1 1 1 3, skippable first 0 0 0 3; gzip of 65535 bytes 3
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module", "allowScripts": { "deno": true, "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent deno@2.9.6 bun@1.4.5 node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { Buffer } from 'node:buffer'
import { promisify } from 'node:util'
import zlib from 'node:zlib'

// A magic number, the length of what follows (little-endian), and that.
const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4])
async function streamed(pieces) {
  const decompress = zlib.createZstdDecompress()
  const writing = (async () => {
    for (const piece of pieces) await new Promise((resolve) => decompress.write(piece, resolve))
    decompress.end()
  })()
  let bytes = 0
  for await (const chunk of decompress) bytes += chunk.length
  await writing
  return bytes
}

async function look(length, before) {
  const frame = zlib.zstdCompressSync(Buffer.alloc(length, 1))
  const input = Buffer.concat([before, frame, frame, frame])
  const sync = zlib.zstdDecompressSync(input)
  const async = await promisify(zlib.zstdDecompress)(input)
  const whole = await streamed([input])
  const each = await streamed(Array.from(input, (byte) => Buffer.of(byte)))
  return [sync.length, async.length, whole, each].map((bytes) => bytes / length).join(' ')
}

const member = zlib.gzipSync(Buffer.alloc(65_535, 1))
const lines = [
  `of 65536 bytes ${await look(65_536, Buffer.alloc(0))}`,
  `of 65535 bytes ${await look(65_535, Buffer.alloc(0))}`,
  `skippable first ${await look(65_536, skippable)}`,
]
const members = zlib.gunzipSync(Buffer.concat([member, member, member])).length / 65_535
console.log(`${lines.join(', ')}; gzip of 65535 bytes ${members}`)
PROGRAM
result="node: $(node_modules/node/bin/node try.mjs)
deno: $(node_modules/.bin/deno run -A try.mjs)
bun: $(node_modules/.bin/bun try.mjs)"
echo "$result"
all='of 65536 bytes 3 3 3 3, of 65535 bytes 3 3 3 3, skippable first 3 3 3 3; gzip of 65535 bytes 3'
expected="node: $all
deno: of 65536 bytes 3 3 3 3, of 65535 bytes 1 1 1 3, skippable first 0 0 0 3; gzip of 65535 bytes 3
bun: $all"
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
