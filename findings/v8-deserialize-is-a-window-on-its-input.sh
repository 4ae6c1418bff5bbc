#!/usr/bin/env bash
# v8-deserialize-is-a-window-on-its-input.sh: whether v8.deserialize copies depends on the length of a name that stands before.
#
# In Node and Deno the typed arrays that v8.deserialize gives are views of the bytes that it was given, where these happen to lie at a
# multiple of the size of their elements; elsewhere they are copies. So with a page that is used again the values of an object that was
# read from it change, or do not, depending on how long an unrelated string before them is. What is not copied also keeps all of the
# block alive that the page is cut from: here 16 bytes keep 2 MiB. Uint8Array is never copied. Bun copies always.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with Node 26.10, Deno 2.9.6 and Bun 1.4.5, 30 November 2026:
#   node, deno: Uint8Array changes after names of 0 1 2 3 4 5 6 7 letters, Uint16Array of 0 2 4 6, Float64Array of 2; at most 2097152 bytes kept
#   bun:        none ever changes; at most 16 bytes kept
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module", "allowScripts": { "deno": true, "bun": true, "node": true } }' > package.json
npm install --no-audit --no-fund --silent deno@2.9.6 bun@1.4.5 node@26.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { Buffer } from 'node:buffer'
import v8 from 'node:v8'

const block = Buffer.from(new ArrayBuffer(1 << 21))
const page = block.subarray(65_536, 131_072)

// Reads an object out of the page, then gives the page other content: does the object change?
function changes(Type, nameLength) {
  const stored = v8.serialize({ name: 'x'.repeat(nameLength), values: new Type(16 / Type.BYTES_PER_ELEMENT).fill(1) })
  page.set(stored)
  const { values } = v8.deserialize(page.subarray(0, stored.length))
  if (!values.every((value) => value === 1)) throw new Error('not what was stored')
  page.fill(0)
  return { changed: values.some((value) => value !== 1), kept: values.buffer.byteLength }
}

const lines = []
let kept = 0
for (const Type of [Uint8Array, Uint16Array, Float64Array]) {
  const lengths = []
  for (let length = 0; length < 8; length++) {
    const look = changes(Type, length)
    kept = Math.max(kept, look.kept)
    if (look.changed) lengths.push(length)
  }
  lines.push(`${Type.name} ${lengths.join(' ') || 'never'}`)
}
console.log(`${lines.join(', ')}; at most ${kept} bytes kept`)
PROGRAM
result="node: $(node_modules/node/bin/node try.mjs)
deno: $(node_modules/.bin/deno run -A try.mjs)
bun:  $(node_modules/.bin/bun try.mjs)"
echo "$result"
windows='Uint8Array 0 1 2 3 4 5 6 7, Uint16Array 0 2 4 6, Float64Array 2; at most 2097152 bytes kept'
expected="node: $windows
deno: $windows
bun:  Uint8Array never, Uint16Array never, Float64Array never; at most 16 bytes kept"
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
