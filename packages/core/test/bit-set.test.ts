import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BitSet } from '../src/index.ts'

const window = 3000
const run = fc.tuple(fc.nat(window - 1), fc.integer({ min: 1, max: 400 }))
// Within the first block, across the ends of blocks, and beyond what 32 bits hold.
const base = fc.constantFrom(0, 2 ** 16 - 1500, 3 * 2 ** 16 - 1500, 2 ** 33 - 1500)

describe('BitSet', () => {
  it('finds what a plain array finds, after any runs were set and cleared', () => {
    const changes = fc.array(fc.tuple(fc.boolean(), run), { maxLength: 20 })
    fc.assert(
      fc.property(base, changes, run, (start, steps, [first, count]) => {
        const bits = new BitSet()
        const plain = new Array<boolean>(window + 400).fill(false)
        for (const [value, [from, length]] of steps) {
          if (value) bits.set(start + from, length)
          else bits.clear(start + from, length)
          plain.fill(value, from, from + length)
        }
        const end = first + count
        const firstOf = (value: boolean) => {
          const found = plain.indexOf(value, first)
          return start + (found < 0 || found > end ? end : found)
        }
        const inRun = plain.slice(first, end)
        expect(bits.count).toBe(plain.filter(Boolean).length)
        expect(bits.has(start + first)).toBe(plain[first])
        expect(bits.countIn(start + first, count)).toBe(inRun.filter(Boolean).length)
        expect(bits.endOfClear(start + first, start + end)).toBe(firstOf(true))
        expect(bits.endOfSet(start + first, start + end)).toBe(firstOf(false))
        expect(bits.hasAll(start + first, count)).toBe(inRun.every(Boolean))
        const last = inRun.lastIndexOf(true)
        const before = inRun.lastIndexOf(false, last)
        const lastRun = last < 0 ? undefined : { first: start + first + before + 1, count: last - before }
        expect(bits.lastRun(start + first, start + end)).toEqual(lastRun)
        const next = plain.indexOf(true, first)
        const after = plain.indexOf(false, next)
        const length = Math.min(50, (after < 0 ? plain.length : after) - next)
        expect(bits.runFrom(start + first, 50)).toEqual(
          next < 0 ? undefined : { first: start + next, count: length },
        )
      }),
      { numRuns: 300 },
    )
  })

  it('steps over whole blocks that are full or empty', () => {
    const bits = new BitSet()
    bits.set(0, 2 ** 20)
    bits.clear(2 ** 19, 2 ** 17)
    expect(bits.count).toBe(2 ** 20 - 2 ** 17)
    expect(bits.endOfSet(5, 2 ** 20)).toBe(2 ** 19)
    expect(bits.endOfClear(2 ** 19, 2 ** 20)).toBe(2 ** 19 + 2 ** 17)
    expect(bits.lastRun(0, 2 ** 20)).toEqual({ first: 2 ** 19 + 2 ** 17, count: 2 ** 20 - 2 ** 19 - 2 ** 17 })
    expect(bits.lastRun(0, 2 ** 19 + 5)).toEqual({ first: 0, count: 2 ** 19 })
    expect(bits.lastRun(7, 2 ** 19)).toEqual({ first: 7, count: 2 ** 19 - 7 })
    bits.clear(0, 2 ** 40)
    expect([bits.count, bits.runFrom(0, 1)]).toEqual([0, undefined])
  })

  it('takes memory for what was set, not for the capacity', () => {
    const bits = new BitSet()
    expect(bits.endOfClear(0, 2 ** 38)).toBe(2 ** 38)
    expect(bits.endOfSet(2 ** 37, 2 ** 38)).toBe(2 ** 37)
    expect(bits.lastRun(0, 2 ** 38)).toBeUndefined()
    bits.clear(2 ** 37, 2 ** 36)
    expect(bits.countIn(0, 2 ** 16)).toBe(0)
    expect(bits.metadataBytes).toBe(0)
    bits.set(3, 1)
    expect(bits.metadataBytes).toBeLessThan(128)
    bits.set(2 ** 16, 2 ** 16)
    expect(bits.metadataBytes).toBeLessThan(2 ** 13 + 256)
    bits.reset()
    expect([bits.metadataBytes, bits.count, bits.has(3)]).toEqual([0, 0, false])
  })
})
