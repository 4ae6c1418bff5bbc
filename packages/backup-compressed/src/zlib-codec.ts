import { promisify } from 'node:util'
import * as zlib from 'node:zlib'
import type { Codec } from './codec.ts'

/** Through `node:zlib`: compresses in threads of libuv's pool. zstd, or deflate where the runtime has no zstd. */
export function zlibCodec(): Codec {
  if (typeof zlib.zstdCompress !== 'function') return deflateCodec()
  const compress = promisify(zlib.zstdCompress)
  const options = { params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 } }
  return {
    name: 'zstd (node:zlib)',
    compress: async (source, target) => put(await compress(source, options), target),
    decompress: (source, target) =>
      put(zlib.zstdDecompressSync(source, { maxOutputLength: target.byteLength }), target),
  }
}

function deflateCodec(): Codec {
  const compress = promisify<Uint8Array, zlib.ZlibOptions, Uint8Array>(zlib.deflateRaw)
  return {
    name: 'deflate (node:zlib)',
    compress: async (source, target) => put(await compress(source, { level: 1 }), target),
    decompress: (source, target) =>
      put(zlib.inflateRawSync(source, { maxOutputLength: target.byteLength }), target),
  }
}

function put(bytes: Uint8Array, target: Uint8Array): number {
  if (bytes.byteLength > target.byteLength) return 0
  target.set(bytes)
  return bytes.byteLength
}
