import { randomBytes } from 'node:crypto'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { Mapping, Zstd } from '../src/index.ts'

const bytes = (length: number) => new Uint8Array(randomBytes(length))
const text = new Uint8Array(65536).map((_, index) => 97 + ((index * index) % 23))

describe('Zstd', () => {
  it('writes what node:zlib reads, and reads what it wrote, in memory of every kind', () => {
    using zstd = Zstd.create()
    using mapping = Mapping.anonymous(65536)
    for (const target of [new Uint8Array(65536), new Uint8Array(70000).subarray(3), mapping.view(0, 65536)]) {
      const written = zstd.compress(text, target)
      expect(written).toBeGreaterThan(0)
      expect(written).toBeLessThan(text.byteLength)
      expect(Buffer.compare(zstdDecompressSync(target.subarray(0, written)), text)).toBe(0)
      const unpacked = bytes(65536)
      expect(zstd.decompress(target.subarray(0, written), unpacked)).toBe(65536)
      expect(Buffer.compare(unpacked, text)).toBe(0)
      expect(zstd.decompress(zstdCompressSync(text), target)).toBe(65536)
    }
  })

  it('returns 0 for what does not fit, writes nothing behind its target, and works on after it', () => {
    using zstd = Zstd.create()
    const memory = new Uint8Array(65536).fill(7)
    expect(zstd.compress(bytes(65536), memory.subarray(0, 60000))).toBe(0)
    expect(memory.subarray(60000).every((byte) => byte === 7)).toBe(true)
    const written = zstd.compress(text, memory)
    expect(zstd.decompress(memory.subarray(0, written), new Uint8Array(65536))).toBe(65536)
  })

  it('says EIO for what is no frame, a cut or a changed one, and one that has no room', () => {
    using zstd = Zstd.create()
    const target = new Uint8Array(65536)
    const frame = new Uint8Array(65536)
    const packed = frame.subarray(0, zstd.compress(text, frame))
    const refused = expect.objectContaining({ code: 'EIO' })
    expect(() => zstd.decompress(bytes(1000).fill(1, 0, 4), target)).toThrow(refused)
    expect(() => zstd.decompress(packed.subarray(0, packed.byteLength - 1), target)).toThrow(refused)
    expect(() => zstd.decompress(packed, target.subarray(0, 65535))).toThrow(refused)
    packed[0] ^= 1
    expect(() => zstd.decompress(packed, target)).toThrow(refused)
    packed[0] ^= 1
    expect(zstd.decompress(packed, target)).toBe(65536)
  })

  it('refuses bad arguments before libzstd sees them, and all of them once closed', () => {
    for (const level of [0, 1.5, 20, '1']) expect(() => Zstd.create(level as number)).toThrow(RangeError)
    const zstd = Zstd.create(3)
    const [none, page] = [new Uint8Array(0), bytes(4096)]
    for (const call of [zstd.compress, zstd.decompress].map((method) => method.bind(zstd))) {
      expect(() => call(none, page)).toThrow(RangeError)
      expect(() => call(page, none)).toThrow(RangeError)
      expect(() => call('page' as never, page)).toThrow(TypeError)
    }
    zstd.close()
    zstd.close()
    const closed = expect.objectContaining({ code: 'EBADF' })
    expect(() => zstd.compress(page, page)).toThrow(closed)
    expect(() => zstd.decompress(page, page)).toThrow(closed)
  })
})
