import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SlotBits } from '../src/slot-bits.ts'

const slots = 6000
const run = fc.tuple(fc.nat(slots - 1), fc.integer({ min: 1, max: 400 }))

describe('SlotBits', () => {
  it('finds what a plain array finds, after any runs were set and cleared', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), run), { maxLength: 20 }),
        run,
        (changes, [first, count]) => {
          const bits = new SlotBits()
          const plain = new Array<boolean>(slots + 400).fill(false)
          for (const [value, [from, length]] of changes) {
            if (value) bits.set(from, length)
            else bits.clear(from, length)
            plain.fill(value, from, from + length)
          }
          const end = first + count
          const firstOf = (value: boolean) => {
            const found = plain.indexOf(value, first)
            return found < 0 || found > end ? end : found
          }
          expect(bits.endOfClear(first, end)).toBe(firstOf(true))
          expect(bits.endOfSet(first, end)).toBe(firstOf(false))
          expect(bits.hasAll(first, count)).toBe(plain.slice(first, end).every(Boolean))
          let last = end - 1
          while (last >= first && !plain[last]) last--
          let start = last
          while (start - 1 >= first && plain[start - 1]) start--
          const expected = last < first ? undefined : { first: start, count: last - start + 1 }
          expect(bits.lastRun(first, end)).toEqual(expected)
        },
      ),
      { numRuns: 300 },
    )
  })

  it('takes memory for slots that were set, not for the capacity', () => {
    const bits = new SlotBits()
    expect(bits.endOfClear(0, 2 ** 38)).toBe(2 ** 38)
    expect(bits.endOfSet(2 ** 37, 2 ** 38)).toBe(2 ** 37)
    bits.clear(2 ** 37, 2 ** 36)
    expect(bits.metadataBytes).toBeLessThan(1024)
  })
})
