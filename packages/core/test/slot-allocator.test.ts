import { describe, expect, it } from 'vitest'
import type { HandleRun } from '../src/index.ts'
import { maxHandle, SlotAllocator } from '../src/index.ts'

function handlesOf(runs: Iterable<HandleRun>): number[] {
  return [...runs].flatMap(({ first, count }) => Array.from({ length: count }, (_, index) => first + index))
}

describe('SlotAllocator', () => {
  it('T84: hands out every slot once, in contiguous runs, and then says that it is exhausted', () => {
    const slots = new SlotAllocator({ capacitySlots: 10_000 })
    const seen = new Set<number>()
    for (let run = slots.allocateRun(300); run !== undefined; run = slots.allocateRun(300)) {
      for (const handle of handlesOf([run])) {
        expect(slots.isLive(handle)).toBe(true)
        seen.add(slots.slotOf(handle))
      }
    }
    expect(seen.size).toBe(10_000)
    expect(Math.max(...seen)).toBe(9_999)
    expect(slots.freeSlots).toBe(0)
    expect(slots.liveSlots).toBe(10_000)
    expect(slots.highWaterSlots).toBe(10_000)
    expect(slots.allocateRun(1)).toBeUndefined()
  })

  it('hands out the free slots that a caller names, as far as they are free [T84]', () => {
    const slots = new SlotAllocator({ capacitySlots: 10_000 })
    expect(slots.allocateAt(0, 1)).toBeUndefined()
    const whole = slots.allocateRun(5000)!
    slots.free([
      { first: whole.first + 100, count: 50 },
      { first: whole.first + 4090, count: 20 },
    ])
    expect(slots.allocateAt(99, 5)).toBeUndefined()
    const run = slots.allocateAt(120, 100)!
    expect([slots.slotOf(run.first), run.count]).toEqual([120, 30])
    expect(slots.isLive(run.first)).toBe(true)
    expect(slots.isLive(whole.first + 120)).toBe(false)
    // Regions have 4096 slots: a run may end with one.
    expect(slots.allocateAt(4090, 20)!.count).toBe(6)
    expect(slots.allocateAt(4096, 20)!.count).toBe(14)
    expect(slots.freeSlots).toBe(5000 + 20)
    expect(() => slots.allocateAt(10_000, 1)).toThrow(RangeError)
    expect(() => slots.allocateAt(0, 0)).toThrow(RangeError)
  })

  it('takes over the handles of another allocator, and hands out only what they leave', () => {
    const before = new SlotAllocator({ capacitySlots: 10_000 })
    const runs = [3, 5000, 40].map((count) => before.allocateRun(count)!)
    before.freeRun(runs[0]!)
    const after = new SlotAllocator({ capacitySlots: 10_000, generationSeed: before.generation })
    for (const run of before.liveRuns()) after.adopt(run.first, run.count)
    expect([...after.liveRuns()]).toEqual([...before.liveRuns()])
    expect(after.highWaterSlots).toBe(before.highWaterSlots)
    // What two images name comes twice, and not always in the same runs.
    const middle = runs[1]!
    after.adopt(middle.first + 10, 20)
    after.freeRun({ first: middle.first, count: 10 })
    after.adopt(middle.first + 5, 20)
    expect(after.liveSlots).toBe(5040 - 5)
    const seen = new Set(handlesOf(after.liveRuns()))
    for (let run = after.allocateRun(400); run !== undefined; run = after.allocateRun(400)) {
      for (const handle of handlesOf([run])) {
        expect(seen.has(handle) || before.isLive(handle)).toBe(false)
        seen.add(handle)
      }
    }
    expect(new Set([...seen].map((handle) => after.slotOf(handle))).size).toBe(10_000)
    expect(() => after.adopt(middle.first, 1)).toThrow(RangeError)
    expect(() => after.adopt(7, 1)).toThrow(RangeError)
  })

  it('T84: a handle whose slot was reused is stale, and freeing it frees nothing', () => {
    const slots = new SlotAllocator({ capacitySlots: 1 })
    const before = slots.allocateRun(1)!
    expect(slots.freeRun(before)).toBeUndefined()
    expect(slots.isLive(before.first)).toBe(false)
    const after = slots.allocateRun(1)!
    expect(slots.slotOf(after.first)).toBe(slots.slotOf(before.first))
    expect(after.first).not.toBe(before.first)
    expect(slots.isLive(before.first)).toBe(false)
    expect(slots.freeRun(before)).toBe(before.first)
    expect(slots.isLive(after.first)).toBe(true)
  })

  it('T84: frees all of a list or none, a handle named twice included', () => {
    const slots = new SlotAllocator({ capacitySlots: 100 })
    const first = slots.allocateRun(10)!
    const second = slots.allocateRun(10)!
    const again = { first: first.first + 3, count: 1 }
    expect(slots.free([first, second, again])).toBe(again.first)
    expect(slots.liveSlots).toBe(20)
    expect(slots.firstNotLive([first, second])).toBeUndefined()
    expect(slots.free([second, { first: first.first + 5, count: 6 }])).toBe(first.first + 10)
    expect(slots.liveSlots).toBe(20)
    expect(slots.free([first, second])).toBeUndefined()
    expect(slots.liveSlots).toBe(0)
  })

  it('T84: tells freed ranges of slots, neighbours joined', () => {
    const slots = new SlotAllocator({ capacitySlots: 100 })
    const whole = slots.allocateRun(30)!
    const told: [number, number][] = []
    const parts = [
      { first: whole.first, count: 10 },
      { first: whole.first + 10, count: 5 },
      { first: whole.first + 20, count: 5 },
    ]
    expect(slots.free(parts, (firstSlot, count) => told.push([firstSlot, count]))).toBeUndefined()
    expect(told).toEqual([
      [0, 15],
      [20, 5],
    ])
  })

  it('T84: retired slots are stale at once and reused only after their release', () => {
    const slots = new SlotAllocator({ capacitySlots: 8 })
    const run = slots.allocateRun(8)!
    expect(slots.retire([run])).toBeUndefined()
    expect(slots.isLive(run.first)).toBe(false)
    expect(slots.freeSlots).toBe(0)
    expect(slots.allocateRun(1)).toBeUndefined()
    slots.release(2, 3)
    expect(slots.freeSlots).toBe(3)
    expect(slots.slotOf(slots.allocateRun(8)!.first)).toBe(2)
    expect(() => slots.release(2, 1)).toThrow(RangeError)
    expect(() => slots.release(0, 3)).toThrow(RangeError)
    slots.release(0, 2)
    slots.release(5, 3)
    expect(slots.freeSlots).toBe(5)
  })

  it('T84: handles stay exact up to the largest slot of a large space', () => {
    for (const capacitySlots of [2 ** 28, 2 ** 28 + 1, 2 ** 40]) {
      const slots = new SlotAllocator({ capacitySlots, generationSeed: 2 ** 24 - 3 })
      for (let round = 0; round < 5; round++) {
        const run = slots.allocateRun(20_000)!
        expect(run.count).toBe(20_000)
        expect(run.first).toBeGreaterThanOrEqual(slots.slotRange)
        expect(run.first + run.count).toBeLessThanOrEqual(maxHandle)
        expect(slots.slotOf(run.first + 19_999)).toBe(slots.slotOf(run.first) + 19_999)
      }
      expect(slots.liveSlots).toBe(100_000)
    }
  })

  it('T83: does not take the handles of another allocator for its own', () => {
    const mine = new SlotAllocator({ capacitySlots: 1000, generationSeed: 7 })
    const other = new SlotAllocator({ capacitySlots: 1000, generationSeed: 70 })
    const foreign = other.allocateRun(10)!
    mine.allocateRun(10)
    expect(mine.isLive(foreign.first)).toBe(false)
    expect(mine.freeRun(foreign)).toBe(foreign.first)
    expect(mine.liveSlots).toBe(10)
  })

  it('T84: a run that leaves its generation, or was never made, is not live', () => {
    const slots = new SlotAllocator({ capacitySlots: 6, generationSeed: 1 })
    const run = slots.allocateRun(6)!
    expect(slots.firstNotLive([{ first: run.first, count: 7 }])).toBe(run.first + 6)
    for (const forged of [1, 5, run.first - 1, run.first + 2 ** 32 * slots.slotRange, maxHandle]) {
      expect(slots.isLive(forged)).toBe(false)
    }
  })

  it('refuses sizes that are no whole number, and names them', () => {
    for (const capacitySlots of [0, -1, 1.5, Number.NaN, 2 ** 41]) {
      expect(() => new SlotAllocator({ capacitySlots })).toThrow(`${capacitySlots}`)
    }
    expect(() => new SlotAllocator({ capacitySlots: 1, generationSeed: -1 })).toThrow(RangeError)
    expect(() => new SlotAllocator({ capacitySlots: 1, seed: 1 } as never)).toThrow(/"seed"/)
    const slots = new SlotAllocator({ capacitySlots: 1 })
    for (const wanted of [0, -1, 0.5, Number.NaN]) expect(() => slots.allocateRun(wanted)).toThrow(RangeError)
  })

  it('T84: sees that a freed run joined both of its neighbours', () => {
    const slots = new SlotAllocator({ capacitySlots: 4096 })
    const { first } = slots.allocateRun(4096)!
    const free = (slot: number, count: number): unknown => slots.freeRun({ first: first + slot, count })
    for (const slot of [0, 110, 300]) free(slot, 100)
    // Now the allocator has looked everywhere, and knows that no run is longer than 100.
    expect(slots.allocateRun(4096)!.count).toBe(100)
    free(210, 90)
    expect(slots.allocateRun(256)!.count).toBe(256)
  })

  it('T84: prefers unused space to a run that is too short', () => {
    const slots = new SlotAllocator({ capacitySlots: 3 * 4096 })
    const { first } = slots.allocateRun(4096)!
    slots.freeRun({ first: first + 10, count: 65 })
    expect(slots.allocateRun(70)!.count).toBe(70)
    expect(slots.slotOf(slots.allocateRun(64)!.first)).toBe(10)
  })

  it('T84: takes the best it saw when looking on would take too long', () => {
    const slots = new SlotAllocator({ capacitySlots: 12 * 4096 })
    const { first } = slots.allocateRun(12 * 4096)!
    for (let region = 0; region < 12; region++) {
      for (let slot = 0; slot < 1200; slot += 2)
        slots.freeRun({ first: first + region * 4096 + slot, count: 1 })
    }
    slots.freeRun({ first: first + 3 * 4096 + 2000, count: 50 })
    const run = slots.allocateRun(512)!
    expect([slots.slotOf(run.first), run.count]).toEqual([3 * 4096 + 2000, 50])
  })

  it('T84: regions that were given back and taken again share nothing', () => {
    const slots = new SlotAllocator({ capacitySlots: 2 * 4096 })
    for (let round = 0; round < 3; round++) {
      const first = slots.allocateRun(4096)!
      const second = slots.allocateRun(4096)!
      expect(slots.firstNotLive([first, second])).toBeUndefined()
      expect(slots.free([first])).toBeUndefined()
      expect(slots.firstNotLive([second])).toBeUndefined()
      expect(slots.free([second])).toBeUndefined()
    }
  })

  it('T84: serves 2^28 slots, at a bounded number of words for each run', () => {
    const slots = new SlotAllocator({ capacitySlots: 2 ** 28 })
    const runSlots = 2048
    const runs: HandleRun[] = []
    for (let run = slots.allocateRun(runSlots); run !== undefined; run = slots.allocateRun(runSlots))
      runs.push(run)
    expect(runs.length).toBe(2 ** 28 / runSlots)
    expect(slots.slotOf(runs.at(-1)!.first) + runSlots).toBe(2 ** 28)
    // A word per 32 slots taken, and a few more to find them.
    expect(slots.inspectedWords).toBeLessThan(runs.length * (runSlots / 32 + 32))
    expect(slots.metadataBytes / 2 ** 28).toBeLessThan(0.4)
    expect(runs.find((run) => slots.freeRun(run) !== undefined)).toBeUndefined()
    expect(slots.freeSlots).toBe(2 ** 28)
    expect(slots.metadataBytes).toBeLessThan(2 ** 20)
    const again = slots.allocateRun(1_000_000)!
    expect(again.count).toBe(1_000_000)
    expect(slots.isLive(runs[0].first)).toBe(false)
  })

  it('T84: tells the generations of short runs apart, at 3.4 bytes a slot and only where they are', () => {
    const slots = new SlotAllocator({ capacitySlots: 4 * 4096 })
    const long = slots.allocateRun(2 * 4096)!
    const single: number[] = []
    for (let index = 0; index < 4096; index++) single.push(slots.allocateRun(1)!.first)
    expect(slots.metadataBytes).toBeLessThan(2 * 4096 * 0.4 + 4096 * 3.4)
    expect(single.every((handle) => slots.isLive(handle))).toBe(true)
    expect(single.some((handle) => slots.isLive(handle + slots.slotRange))).toBe(false)
    for (const first of single) slots.freeRun({ first, count: 1 })
    expect(single.some((handle) => slots.isLive(handle))).toBe(false)
    expect(slots.firstNotLive([long])).toBeUndefined()
    const next = slots.allocateRun(4096)!
    expect(slots.metadataBytes).toBeLessThan(3 * 4096 * 0.4)
    expect(slots.firstNotLive([next, long])).toBeUndefined()
  })

  it('T84: stays O(1) amortised where every second slot is live', () => {
    const capacitySlots = 2 ** 18
    const slots = new SlotAllocator({ capacitySlots })
    const whole = slots.allocateRun(capacitySlots)!
    expect(whole.count).toBe(capacitySlots)
    let calls = 1
    for (let slot = 0; slot < capacitySlots; slot += 2) {
      slots.freeRun({ first: whole.first + slot, count: 1 })
      calls++
    }
    const wordsBefore = slots.inspectedWords
    let dearest = 0
    let taken = 0
    while (taken < 50_000) {
      const before = slots.inspectedWords
      const run = slots.allocateRun(512)!
      dearest = Math.max(dearest, slots.inspectedWords - before)
      taken += run.count
      calls++
    }
    expect(taken).toBe(calls - 1 - capacitySlots / 2)
    // Looking at a whole region is 128 words; one call gives up after nine of them.
    expect(dearest).toBeLessThan(10 * 128 + 100)
    expect((slots.inspectedWords - wordsBefore) / taken).toBeLessThan(16)
  })

  it('T84: freed neighbours join, and small requests leave whole regions whole', () => {
    const slots = new SlotAllocator({ capacitySlots: 4 * 4096 })
    const singles = Array.from({ length: 4 * 4096 }, () => slots.allocateRun(1)!)
    for (const run of singles.slice(4096, 8192)) slots.freeRun(run)
    slots.freeRun(singles[10])
    slots.freeRun(singles[9000])
    expect(slots.slotOf(slots.allocateRun(1)!.first)).toBe(10)
    expect(slots.slotOf(slots.allocateRun(1)!.first)).toBe(9000)
    expect(slots.allocateRun(5000)!.count).toBe(4096)
    expect(slots.allocateRun(1)).toBeUndefined()
  })

  it('tells live runs one by one, of one generation each, while slots come and go', () => {
    const slots = new SlotAllocator({ capacitySlots: 10_000 })
    const first = slots.allocateRun(5000)!
    const second = slots.allocateRun(10)!
    expect([...slots.liveRuns()]).toEqual([first, second])
    slots.freeRun({ first: first.first + 1, count: 1 })
    const live = slots.liveRuns()
    expect(live.next().value).toEqual({ first: first.first, count: 1 })
    slots.freeRun(second)
    expect([...live]).toEqual([{ first: first.first + 2, count: 4998 }])
  })
})
