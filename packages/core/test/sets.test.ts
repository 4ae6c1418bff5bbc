import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HandleSet } from '../src/backups/handle-set.ts'
import { BitTree } from '../src/slots/bit-tree.ts'

describe('BitTree', () => {
  it('agrees with a plain set, and finds its least member in a few words', () => {
    const member = fc.oneof(fc.nat(100), fc.nat(40_000), fc.nat(2 ** 25 - 1))
    const step = fc.tuple(fc.boolean(), member)
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const tree = new BitTree()
        const model = new Set<number>()
        for (const [adds, number] of steps) {
          const victim = adds || model.size === 0 ? number : [...model][number % model.size]
          if (adds) tree.add(victim)
          else tree.delete(victim)
          if (adds) model.add(victim)
          else model.delete(victim)
          const before = tree.inspectedWords
          expect(tree.least()).toBe(model.size === 0 ? -1 : Math.min(...model))
          expect(tree.inspectedWords - before).toBeLessThanOrEqual(5)
          expect(tree.has(victim)).toBe(model.has(victim))
          expect(tree.isEmpty).toBe(model.size === 0)
        }
      }),
      { numRuns: 60 },
    )
  })
})

describe('HandleSet', () => {
  it('agrees with a plain set of runs, beyond 2^32 too', () => {
    const size = 5 * 2 ** 11
    const cut = fc.record({ first: fc.nat(size - 1), count: fc.integer({ min: 1, max: 10_000 }) })
    fc.assert(
      fc.property(fc.nat(2 ** 51), fc.array(cut, { maxLength: 20 }), (base, cuts) => {
        const handles = new HandleSet(base + 1)
        const before = 2 ** 25
        handles.add(base + 1, before)
        const start = base + 1 + before
        handles.add(start, size)
        const live = new Uint8Array(size).fill(1)
        for (const { first, count } of cuts) {
          const length = Math.min(count, size - first)
          const missing = live.subarray(first, first + length).indexOf(0)
          expect(handles.firstMissing(start + first, length)).toBe(
            missing < 0 ? undefined : start + first + missing,
          )
          if (missing >= 0) continue
          handles.delete(start + first, length)
          live.fill(0, first, first + length)
        }
        for (let index = 0; index < size; index += 31) {
          expect(handles.firstMissing(start + index, 1) === undefined).toBe(live[index] === 1)
        }
        expect(handles.firstMissing(base + 1, before)).toBeUndefined()
        handles.delete(base + 1, before)
        expect(handles.firstMissing(base + 1, 1)).toBe(base + 1)
        expect(handles.firstMissing(start - 1, 1)).toBe(start - 1)
        expect(handles.firstMissing(base, 1)).toBe(base)
        expect(handles.firstMissing(start + size, 1)).toBe(start + size)
      }),
      { numRuns: 40 },
    )
  })
})
