#!/usr/bin/env bash
# compressed-pages-keep-their-chunk.sh: a page that node:zlib compressed to 20 bytes can hold as much memory as before.
#
# What zstdCompressSync, deflateSync and brotliCompressSync give is a view of the chunk of 16 KiB into which was compressed, and the chunk
# lives as long as the view. In Node 26 the chunk is itself a piece of the pool of Buffer, 64 KiB: of four results in a row that are kept
# each holds a quarter of a page, and one that is kept among others that are dropped holds 65,600 bytes, more than the page of 64 KiB did.
# So a cache of compressed pages saves what it says only if it copies each result (new Uint8Array(result)). In Deno each holds its
# 16 KiB, but not those of the asynchronous deflate. In Bun a result is as long as its buffer.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with Node 26.10, Deno 2.9.6 and Bun 1.4.5, 30 November 2026, pages of 65,536 equal bytes; KiB held for each result
# when all are kept/when each tenth is:
#   node: zstd 16+/64, zstd async 16+/64, deflate 16+/64, deflate async 16+/64, brotli 16+/64, copied zstd 0/0 (16 to 22)
#   deno: zstd 16+/16+, zstd async 16+/16+, deflate 16+/16+, deflate async 0/0, brotli 16+/16+, copied zstd 0/0 (16)
#   bun:  zstd 0/0, zstd async 0/0, deflate 0/0, deflate async 0/0, brotli 0/0, copied zstd 0/0
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module", "allowScripts": { "deno": true, "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent deno@2.9.6 bun@1.4.5 node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { Buffer } from 'node:buffer'
import { promisify } from 'node:util'
import * as zlib from 'node:zlib'

const count = 100
const page = Buffer.alloc(65_536, 7)

// Compresses pages one after the other and keeps every n-th result: how many KiB live on for each that is kept?
async function heldBy(compress, every) {
  const results = []
  for (let index = 0; index < count; index++) {
    const result = await compress(page)
    if (index % every === 0) results.push(result)
  }
  if (results.some(({ length }) => length > 100)) throw new Error('not compressed')
  const buffers = new Set(results.map(({ buffer }) => buffer))
  const held = [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0)
  const kibibytes = Math.round(held / results.length / 1024)
  // The pool is shared with whatever else the runtime allocates.
  return kibibytes >= 16 && kibibytes < 32 ? '16+' : kibibytes
}

const methods = {
  zstd: zlib.zstdCompressSync,
  'zstd async': promisify(zlib.zstdCompress),
  deflate: zlib.deflateSync,
  'deflate async': promisify(zlib.deflate),
  brotli: zlib.brotliCompressSync,
  'copied zstd': (bytes) => new Uint8Array(zlib.zstdCompressSync(bytes)),
}
const lines = []
for (const [name, compress] of Object.entries(methods)) lines.push(`${name} ${await heldBy(compress, 1)}/${await heldBy(compress, 10)}`)
console.log(lines.join(', '))
PROGRAM
result="node: $(node_modules/node/bin/node --no-warnings try.mjs)
deno: $(node_modules/.bin/deno run -A try.mjs)
bun:  $(node_modules/.bin/bun try.mjs)"
echo "$result"
expected='node: zstd 16+/64, zstd async 16+/64, deflate 16+/64, deflate async 16+/64, brotli 16+/64, copied zstd 0/0
deno: zstd 16+/16+, zstd async 16+/16+, deflate 16+/16+, deflate async 0/0, brotli 16+/16+, copied zstd 0/0
bun:  zstd 0/0, zstd async 0/0, deflate 0/0, deflate async 0/0, brotli 0/0, copied zstd 0/0'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
