import type { HandleRun } from '@spillway/core'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { PiecePlan } from '../src/piece-plan.ts'
import { SlotBits } from '../src/slot-bits.ts'
import { WorkSlices } from '../src/work-slices.ts'
import { pageBytes } from './pages.ts'

const limits = {
  pageSizeBytes: pageBytes,
  requestBytes: 16 * pageBytes,
  stagedBytes: 8 * pageBytes,
  directBytes: 4 * pageBytes,
  takes: (memory: Uint8Array) => memory.byteOffset % 2 === 0,
}

/** Sizes that add up to the same number of pages, once as runs of handles and once as spans of memory. */
const cuts = fc.tuple(
  fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.boolean()), { minLength: 1, maxLength: 12 }),
  fc.array(fc.tuple(fc.integer({ min: 1, max: 20 }), fc.boolean()), { minLength: 1, maxLength: 40 }),
)

it('cuts every page once, in order, into pieces that are adjacent in the file and not too large', () => {
  fc.assert(
    fc.property(cuts, ([runSizes, spanSizes]) => {
      const runs: HandleRun[] = []
      let next = 1000
      for (const [count, adjacent] of runSizes) {
        if (!adjacent) next += 5
        runs.push({ first: next, count })
        next += count
      }
      const pages = runs.reduce((total, run) => total + run.count, 0)
      const spans: Uint8Array[] = []
      let left = pages
      for (let index = 0; left > 0; index++) {
        const [size, odd] = spanSizes[index % spanSizes.length]
        const count = Math.min(size, left)
        spans.push(new Uint8Array(new ArrayBuffer(count * pageBytes + 1), odd ? 1 : 0, count * pageBytes))
        left -= count
      }
      const plan = new PiecePlan(limits, runs, spans)
      const handles: number[] = []
      const memory: string[] = []
      while (!plan.isDone) {
        const piece = plan.next()
        expect(piece.page).toBe(handles.length)
        expect(piece.pageCount).toBeLessThanOrEqual(piece.staged ? 8 : 16)
        for (let page = 0; page < piece.pageCount; page++) handles.push(piece.handle + page)
        const partBytes = piece.parts.reduce((total, part) => total + part.byteLength, 0)
        expect(partBytes).toBe(piece.pageCount * pageBytes)
        if (!piece.staged) {
          expect(piece.parts).toHaveLength(1)
          expect(limits.takes(piece.parts[0])).toBe(true)
        }
        for (const part of piece.parts) {
          const span = spans.findIndex(({ buffer }) => buffer === part.buffer)
          for (let at = 0; at < part.byteLength; at += pageBytes) {
            memory.push(`${span}:${part.byteOffset - spans[span].byteOffset + at}`)
          }
        }
      }
      expect(handles).toEqual(
        runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, k) => first + k)),
      )
      expect(memory).toEqual(
        spans.flatMap((span, index) =>
          Array.from({ length: span.byteLength / pageBytes }, (_, page) => `${index}:${page * pageBytes}`),
        ),
      )
    }),
  )
})

it('sends large memory as it is and gathers what is scattered', () => {
  const one = (pages: number) => new Uint8Array(pages * pageBytes)
  const spans = [one(8), one(1), one(1), one(1), one(9)]
  const plan = new PiecePlan(limits, [{ first: 1, count: 20 }], spans)
  const cut: [number, boolean][] = []
  while (!plan.isDone) {
    const { pageCount, staged } = plan.next()
    cut.push([pageCount, staged])
  }
  expect(cut).toEqual([
    [8, false],
    [3, true],
    [9, false],
  ])
})

it('keeps slot bits as a set of numbers does', () => {
  const step = fc.tuple(
    fc.constantFrom('set', 'clear'),
    fc.integer({ min: 0, max: 2 ** 18 + 300 }),
    fc.nat(200),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const bits = new SlotBits()
      const model = new Set<number>()
      for (const [verb, first, count] of steps) {
        bits[verb as 'set' | 'clear'](first, count)
        for (let slot = first; slot < first + count; slot++)
          verb === 'set' ? model.add(slot) : model.delete(slot)
        expect(bits.count).toBe(model.size)
        const inside = [...model].filter((slot) => slot >= first - 40 && slot < first + 400)
        const from = Math.max(0, first - 40)
        expect(bits.countIn(from, first + 400 - from)).toBe(inside.length)
        for (const slot of inside.slice(0, 5)) expect(bits.has(slot)).toBe(true)
        const next = [...model].filter((slot) => slot >= first).sort((one, other) => one - other)
        const run = next.findIndex((slot, index) => slot !== next[0] + index)
        const length = Math.min(150, run < 0 ? next.length : run)
        expect(bits.runFrom(first, 150)).toEqual(
          next.length === 0 ? undefined : { first: next[0], count: length },
        )
      }
    }),
  )
})

it('lets no turn of the event loop do more work than its budget, and starts work in order', async () => {
  const slices = new WorkSlices(100)
  const started: number[] = []
  let turn = 0
  let counting = true
  const tick = () => {
    turn++
    if (counting) setImmediate(tick)
  }
  setImmediate(tick)
  const spent = new Map<number, number>()
  const work = async (index: number, bytes: number) => {
    const wait = index % 2 === 0 ? slices.enter(bytes) : slices.enterLater(bytes)
    if (wait !== undefined) await wait
    started.push(index)
    spent.set(turn, (spent.get(turn) ?? 0) + bytes)
  }
  await Promise.all(Array.from({ length: 40 }, (_, index) => work(index, 30)))
  counting = false
  expect(started).toEqual(Array.from({ length: 40 }, (_, index) => index))
  for (const bytes of spent.values()) expect(bytes).toBeLessThanOrEqual(90)
  // What is larger than a budget gets a turn of its own.
  await slices.enterLater(500)
})
