import type { HandleRun } from '@spillway/core'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { PiecePlan } from '../src/piece-plan.ts'
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
