import { setImmediate as nextTurn } from 'node:timers/promises'
import type { PagedBuffer, Pool } from '@spillway/pool'
import { Random, shuffledIndexes } from '../random.ts'
import { LatencyHistogram } from '../statistics.ts'
import { affordableShare } from './case-budget.ts'

export interface PageRestoreFigures {
  readonly pagesPerSecondDepth4: readonly number[]
  readonly pagesPerSecondDepth32: readonly number[]
  readonly latenciesDepth4: LatencyHistogram
  readonly latenciesDepth32: LatencyHistogram
  /** Pages that did not hold the number they were given. */
  readonly wrongPages: number
  /** Share of the pages that each measured round restored. */
  readonly share: number
}

export interface PageRestoreOptions {
  readonly pool: Pool
  readonly pageSizeBytes: number
  readonly pageCount: number
  readonly rounds: number
  /** Time for all rounds: each restores fewer pages when it is short. */
  readonly allowedMs: number
  readonly seed: number
  readonly measured: (running: boolean) => void
}

/**
 * Restores single pages in random order: a buffer made of single pages is backed up whole, then its pages are pinned one
 * by one, half of them with 4 pins in flight and half with 32. Every page carries its number, and is looked at.
 */
export async function measurePageRestores(options: PageRestoreOptions): Promise<PageRestoreFigures> {
  const { pool, pageSizeBytes, pageCount, rounds, allowedMs } = options
  const random = new Random(options.seed)
  const figures = {
    pagesPerSecondDepth4: [] as number[],
    pagesPerSecondDepth32: [] as number[],
    latenciesDepth4: new LatencyHistogram(),
    latenciesDepth32: new LatencyHistogram(),
    wrongPages: 0,
    share: 1,
  }
  await using buffer = await pool.allocate(pageCount * pageSizeBytes, { label: 'single pages', maxOrder: 0 })
  buffer.advise('random')
  let restoredCount = pageCount
  for (let round = 0; round <= rounds; round++) {
    const roundMs = performance.now()
    await numberPages(buffer, restoredCount, pageSizeBytes, round)
    const { error } = await buffer.backup()
    if (error !== undefined) throw new Error(`single pages could not be backed up: ${error.message}`)
    const order = shuffledIndexes(restoredCount, random)
    const half = restoredCount >>> 1
    const runs = [
      {
        depth: 4,
        pages: order.subarray(0, half),
        rates: figures.pagesPerSecondDepth4,
        histogram: figures.latenciesDepth4,
      },
      {
        depth: 32,
        pages: order.subarray(half),
        rates: figures.pagesPerSecondDepth32,
        histogram: figures.latenciesDepth32,
      },
    ]
    for (const { depth, pages, rates, histogram } of runs) {
      const counts = round > 0
      options.measured(counts)
      const start = performance.now()
      figures.wrongPages += await restorePages(
        buffer,
        pages,
        depth,
        pageSizeBytes,
        round,
        counts ? histogram : undefined,
      )
      const seconds = (performance.now() - start) / 1000
      options.measured(false)
      if (counts) rates.push(pages.length / seconds)
    }
    if (round > 0) continue
    const nowMs = performance.now()
    figures.share = affordableShare(allowedMs - (nowMs - roundMs), (nowMs - roundMs) * rounds)
    restoredCount = Math.max(Math.min(pageCount, 64), Math.round(figures.share * pageCount))
  }
  return figures
}

/** Writes a number into every page, so that all of them are dirty and all of them differ. */
async function numberPages(
  buffer: PagedBuffer,
  pageCount: number,
  pageSizeBytes: number,
  round: number,
): Promise<void> {
  const pagesAtOnce = 256
  for (let first = 0; first < pageCount; first += pagesAtOnce) {
    const count = Math.min(pagesAtOnce, pageCount - first)
    using pin = await buffer.pin({
      offset: first * pageSizeBytes,
      length: count * pageSizeBytes,
      write: true,
    })
    let page = first
    for (const span of pin.spans) {
      const words = new Uint32Array(span.buffer, span.byteOffset, span.byteLength / 4)
      for (let word = 0; word < words.length; word += pageSizeBytes / 4)
        words[word] = pageNumber(page++, round)
    }
    await nextTurn()
  }
}

function pageNumber(page: number, round: number): number {
  return ((page + 1) * 64 + round) >>> 0
}

async function restorePages(
  buffer: PagedBuffer,
  pages: Uint32Array,
  depth: number,
  pageSizeBytes: number,
  round: number,
  histogram: LatencyHistogram | undefined,
): Promise<number> {
  let next = 0
  let wrong = 0
  async function worker(): Promise<void> {
    while (next < pages.length) {
      const page = pages[next++]
      const start = performance.now()
      using pin = await buffer.pin({ offset: page * pageSizeBytes, length: pageSizeBytes })
      histogram?.record(performance.now() - start)
      const span = pin.spans[0]
      if (new Uint32Array(span.buffer, span.byteOffset, 1)[0] !== pageNumber(page, round)) wrong++
    }
  }
  await Promise.all(Array.from({ length: depth }, worker))
  return wrong
}
