import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import {
  assertByteCount,
  assertKnownOptions,
  assertPageSize,
  countCopy,
  countHandles,
  countPages,
  maxHandle,
  memoryBackup,
  nullBackup,
} from '../src/index.ts'

const openers: [string, (options: object) => unknown][] = [
  ['memoryBackup', memoryBackup],
  ['nullBackup', nullBackup],
]

describe('validation', () => {
  it('takes powers of two from 4 KiB to 2 MiB as page sizes, and names any other', () => {
    for (let bytes = 4096; bytes <= 2 ** 21; bytes *= 2) expect(() => assertPageSize(bytes)).not.toThrow()
    for (const bytes of [
      0,
      -4096,
      2048,
      4095,
      4097,
      12_288,
      2 ** 22,
      4096.5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
    ]) {
      expect(() => assertPageSize(bytes)).toThrow(RangeError)
      expect(() => assertPageSize(bytes)).toThrow(String(bytes))
    }
  })

  it('takes whole numbers of bytes, and names any other', () => {
    expect(() => assertByteCount(0, 'limitBytes')).not.toThrow()
    for (const bytes of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, null]) {
      expect(() => assertByteCount(bytes as number, 'limitBytes')).toThrow(RangeError)
      expect(() => assertByteCount(bytes as number, 'limitBytes')).toThrow(`limitBytes is ${bytes}`)
    }
    // One that is whole and too large is told the most.
    for (const bytes of [2 ** 60, Number.POSITIVE_INFINITY]) {
      expect(() => assertByteCount(bytes, 'maxBytes')).toThrow('from 0 to 2 ** 53 - 1, 9007199254740991')
    }
    // What looks like a number is shown as what it is.
    expect(() => assertByteCount('4096' as never, 'limitBytes')).toThrow('limitBytes is "4096"')
    expect(() => assertByteCount(4096n as never, 'limitBytes')).toThrow('limitBytes is 4096n')
  })

  it('refuses unknown options and says which there are', () => {
    expect(() => assertKnownOptions({ size: 1 }, ['sizeBytes'], 'thing')).toThrow(/"size".*sizeBytes/)
    for (const given of [null, undefined, 'size', 5]) {
      expect(() => assertKnownOptions(given as never, ['size'], 'thing')).toThrow(
        /thing takes an object of options/,
      )
    }
    const known = ['signal', 'retryMayFail', 'onProgress']
    for (const wrong of [{ signal: 'never' }, { signal: null }, { retryMayFail: 1 }, { onProgress: true }]) {
      expect(() => assertKnownOptions(wrong, known, 'thing')).toThrow(TypeError)
    }
    expect(() => assertKnownOptions({ signal: undefined, retryMayFail: true }, known, 'thing')).not.toThrow()
    for (const [name, open] of openers) {
      expect(() => open({ capacity: 5 }), name).toThrow(TypeError)
      expect(() => open({ pageSizeBytes: 1000 }), name).toThrow(RangeError)
      expect(() => open({ capacityBytes: -1 }), name).toThrow(RangeError)
    }
    expect(() => memoryBackup({ capacityBytes: 4095 })).toThrow(/4095.*4096/)
  })

  it('takes a Uint8Array of any realm, Buffer included, and no other view', () => {
    const foreign: Uint8Array = runInNewContext('new Uint8Array(4096)')
    expect(foreign instanceof Uint8Array).toBe(false)
    expect(countPages([foreign, Buffer.alloc(8192)], 4096)).toBe(3)
    for (const view of [
      new Uint8ClampedArray(4096),
      new Int8Array(4096),
      new DataView(new ArrayBuffer(4096)),
    ]) {
      expect(() => countPages([view as never], 4096)).toThrow(/span 0 is not a Uint8Array/)
    }
  })

  it('counts pages and handles', () => {
    expect(countPages([new Uint8Array(4096), new Uint8Array(3 * 4096)], 4096)).toBe(4)
    expect(countPages([], 4096)).toBe(0)
    expect(
      countHandles([
        { first: 1, count: 2 },
        { first: maxHandle, count: 1 },
      ]),
    ).toBe(3)
    expect(countCopy([{ first: 5, count: 2 }], [new Uint8Array(8192)], 4096)).toBe(2)
    expect(() => countCopy([{ first: 5, count: 1 }], [new Uint8Array(8192)], 4096)).toThrow(
      /1 handles for 2 pages/,
    )
  })
})
