import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { HandleRun } from '../src/index.ts'
import { SlotAllocator } from '../src/index.ts'

/** The same promises kept by a plain map of slot to generation, with every slot its own entry. */
class NaiveSlots {
  readonly live = new Map<number, number>()
  readonly retired = new Set<number>()

  handles(slotRange: number): Set<number> {
    return new Set([...this.live].map(([slot, generation]) => generation * slotRange + slot))
  }
}

function handlesOf(runs: Iterable<HandleRun>): number[] {
  return [...runs].flatMap(({ first, count }) => Array.from({ length: count }, (_, index) => first + index))
}

function longestFree(live: Float64Array): number {
  let longest = 0
  let length = 0
  for (const handle of live) {
    length = handle === 0 ? length + 1 : 0
    longest = Math.max(longest, length)
  }
  return longest
}

describe('SlotAllocator against a model', () => {
  it('T84: agrees with a naive model over random histories', () => {
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('take' as const), size: fc.nat(9000) }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('take' as const), size: fc.nat(70) }) },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constant('takeAt' as const), at: fc.nat(), size: fc.nat(200) }),
      },
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constantFrom('free' as const, 'retire' as const),
          pick: fc.nat(),
          skip: fc.nat(5000),
          size: fc.nat(6000),
        }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('release' as const) }) },
    )
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20_000 }),
        fc.array(step, { maxLength: 60 }),
        (capacity, steps) => {
          const slots = new SlotAllocator({ capacitySlots: capacity })
          const model = new NaiveSlots()
          const held: HandleRun[] = []
          const isFree = (slot: number) =>
            slot < capacity && !model.live.has(slot) && !model.retired.has(slot)
          for (const action of steps) {
            if (action.kind === 'take' || action.kind === 'takeAt') {
              const at = action.kind === 'takeAt' ? action.at % capacity : 0
              const wasUsed = at < slots.highWaterSlots
              const run =
                action.kind === 'take'
                  ? slots.allocateRun(action.size + 1)
                  : slots.allocateAt(at, action.size + 1)
              if (action.kind === 'take') {
                expect(run === undefined).toBe(model.live.size + model.retired.size === capacity)
              } else if (wasUsed) {
                let free = 0
                while (free <= action.size && isFree(at + free)) free++
                // A run that reaches the end of a region of 4096 slots may end there.
                const least = Math.min(free, 4096 - (at % 4096))
                expect(run?.count ?? 0).toBeGreaterThanOrEqual(least)
                if (run !== undefined) expect(slots.slotOf(run.first)).toBe(at)
              }
              if (run === undefined) continue
              expect(run.count).toBeLessThanOrEqual(action.size + 1)
              const first = slots.slotOf(run.first)
              for (let slot = first; slot < first + run.count; slot++) {
                if (!isFree(slot)) throw new Error('taken')
                model.live.set(slot, Math.floor(run.first / slots.slotRange))
              }
              held.push(run)
            } else if (action.kind === 'release') {
              for (const slot of model.retired) slots.release(slot, 1)
              model.retired.clear()
            } else if (held.length > 0) {
              const index = action.pick % held.length
              const run = held[index]
              const skip = action.skip % run.count
              const part = { first: run.first + skip, count: Math.min(action.size + 1, run.count - skip) }
              held.splice(index, 1)
              if (skip > 0) held.push({ first: run.first, count: skip })
              const rest = run.count - skip - part.count
              if (rest > 0) held.push({ first: part.first + part.count, count: rest })
              expect(action.kind === 'free' ? slots.freeRun(part) : slots.retire([part])).toBeUndefined()
              expect(slots.isLive(part.first)).toBe(false)
              const first = slots.slotOf(part.first)
              for (let slot = first; slot < first + part.count; slot++) {
                model.live.delete(slot)
                if (action.kind === 'retire') model.retired.add(slot)
              }
            }
            expect(slots.liveSlots).toBe(model.live.size)
            expect(slots.freeSlots).toBe(capacity - model.live.size - model.retired.size)
          }
          expect(new Set(handlesOf(slots.liveRuns()))).toEqual(model.handles(slots.slotRange))
          expect(slots.firstNotLive(held)).toBeUndefined()
        },
      ),
      { numRuns: 200 },
    )
  })

  it('T84: finds the longest run there is within a region, and nothing that is taken', () => {
    const length = fc.oneof(fc.integer({ min: 1, max: 70 }), fc.constantFrom(31, 32, 33, 64, 96, 128, 1000))
    const step = fc.record({ takes: fc.boolean(), length, where: fc.nat(4095) })
    fc.assert(
      fc.property(fc.constantFrom(100, 512, 4096), fc.array(step, { maxLength: 120 }), (capacity, steps) => {
        const slots = new SlotAllocator({ capacitySlots: capacity })
        const whole = slots.allocateRun(capacity)!
        // The live handle of each slot; 0 is free.
        const live = Float64Array.from({ length: capacity }, (_, slot) => whole.first + slot)
        for (const { takes, length, where } of steps) {
          if (takes) {
            const run = slots.allocateRun(length)
            expect(run?.count ?? 0).toBe(Math.min(length, longestFree(live)))
            if (run === undefined) continue
            const first = slots.slotOf(run.first)
            expect(live.subarray(first, first + run.count).every((handle) => handle === 0)).toBe(true)
            for (let index = 0; index < run.count; index++) live[first + index] = run.first + index
          } else {
            // As many live slots as there are from here on, up to the length.
            const victims: HandleRun[] = []
            for (
              let slot = where % capacity;
              slot < Math.min(capacity, (where % capacity) + length);
              slot++
            ) {
              if (live[slot] !== 0) victims.push({ first: live[slot], count: 1 })
              live[slot] = 0
            }
            expect(slots.free(victims)).toBeUndefined()
          }
        }
      }),
      { numRuns: 100 },
    )
  })
})
