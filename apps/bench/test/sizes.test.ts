import { describe, expect, it } from 'vitest'
import { formatByteSize, formatMilliseconds, formatRate, parseByteSize } from '../src/sizes.ts'

describe('sizes', () => {
  it.each([
    ['4096', 4096],
    ['4KiB', 4096],
    ['4 KB', 4096],
    ['256MiB', 256 * 1024 ** 2],
    ['1.5GiB', 1.5 * 1024 ** 3],
    ['1TiB', 1024 ** 4],
  ])('reads %s', (text, bytes) => {
    expect(parseByteSize(text, '--limit')).toBe(bytes)
  })

  it.each(['12abc', '', '-1MiB', '0', '1.3', 'MiB', '1e9', 'NaN', '99999TiB'])(
    'refuses %j and names it',
    (text) => {
      expect(() => parseByteSize(text, '--limit')).toThrow(`--limit '${text}' is not a size`)
    },
  )

  it('writes sizes, rates and times with their units', () => {
    expect(formatByteSize(268435456)).toBe('256 MiB')
    expect(formatRate(1.52e9)).toBe('1.52 GB/s')
    expect(formatRate(43.21e6)).toBe('43.2 MB/s')
    expect(formatMilliseconds(0.0421)).toBe('42 µs')
    expect(formatMilliseconds(4.21)).toBe('4.2 ms')
  })
})
