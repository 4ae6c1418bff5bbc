import type { PagedBuffer, Pool } from '@spillway/pool'
import { mebibyte } from '../sizes.ts'
import { medianInterval, spreadOf } from '../statistics.ts'

export const chunkBytes = 2 * mebibyte
export const pageSizeBytes = 4096

/** What may be done to a page: the three ways in which one comes into memory, and another leaves for it. */
export const pageWorks = ['fresh', 'restore', 'rewrite'] as const
export type PageWork = (typeof pageWorks)[number]

/** What a kind of work costs in a large buffer, beside the same work in a small one in the same moments. */
export interface PageCost {
  /** Nanoseconds of processor time per page: medians. */
  readonly largeNs: number
  readonly smallNs: number
  /** Median of the ratios of the pairs, 1 is flat, and the interval in which the true median lies 19 times in 20. */
  readonly ratio: number
  readonly ratioLow: number
  readonly ratioHigh: number
}

/** A buffer to work in, larger than what its pool may keep in memory. */
export interface Subject {
  readonly pool: Pool
  readonly buffer: PagedBuffer
  /** Bytes from its beginning that were written; restores come from there. */
  readonly storedBytes: number
  /** Where it is written for the first time next. */
  freshFrom: number
  /** Chunks touched so far at scattered places. */
  touched: number
}

/** Chunks of one measurement: so few that what disturbs one side of a pair mostly disturbs the other too. */
export const freshChunks = 2
const scatteredChunks = 64
/** Chunks are touched in steps of this share of all there are: no two near each other, none twice in a round. */
const goldenShare = (Math.sqrt(5) - 1) / 2

/** Does a kind of work in turn in a large and in a small buffer, so many times, and compares what it takes. */
export async function comparePageCost(
  work: PageWork,
  large: Subject,
  small: Subject,
  pairs: number,
): Promise<PageCost> {
  for (const subject of [large, small]) await fillWith(work, subject)
  const largeNs: number[] = []
  const smallNs: number[] = []
  for (let pair = 0; pair < pairs; pair++) {
    // Every second pair the other way round: what comes first may be at an advantage.
    for (const subject of pair % 2 === 0 ? [large, small] : [small, large]) {
      const ns = subject === large ? largeNs : smallNs
      ns.push(work === 'fresh' ? await timeFresh(subject) : await timeScattered(subject, work === 'rewrite'))
    }
  }
  const ratios = largeNs.map((ns, pair) => ns / smallNs[pair])
  const { low, high } = medianInterval(ratios)
  return {
    largeNs: medianOf(largeNs),
    smallNs: medianOf(smallNs),
    ratio: medianOf(ratios),
    ratioLow: low,
    ratioHigh: high,
  }
}

/** Bytes that `comparePageCost` writes for the first time. */
export function freshBytes(pairs: number, limitBytes: number): number {
  return limitBytes + pairs * freshChunks * chunkBytes
}

/** Does the work until the pool has nothing else in memory, so that what leaves for a page is like what comes. */
async function fillWith(work: PageWork, subject: Subject): Promise<void> {
  const { limitBytes } = subject.pool.stats()
  for (let bytes = 0; bytes < limitBytes; ) {
    if (work === 'fresh') await timeFresh(subject)
    else await timeScattered(subject, work === 'rewrite')
    bytes += (work === 'fresh' ? freshChunks : scatteredChunks) * chunkBytes
  }
}

function timeFresh(subject: Subject): Promise<number> {
  const from = subject.freshFrom
  subject.freshFrom += freshChunks * chunkBytes
  return touchAll(subject.buffer, from, subject.freshFrom)
}

/** Pins every chunk of a range for writing; nanoseconds of processor time per page. */
export async function touchAll(buffer: PagedBuffer, from: number, to: number): Promise<number> {
  const start = processorNs()
  for (let offset = from; offset < to; offset += chunkBytes) {
    using pin = await buffer.pin({ offset, length: Math.min(chunkBytes, to - offset), write: true })
    pin.spans[0][0] = 1
  }
  return (processorNs() - start) / ((to - from) / pageSizeBytes)
}

/** Pins chunks at scattered places; processor time as above, for each page that had to be restored. */
async function timeScattered(subject: Subject, write: boolean): Promise<number> {
  const { pool, buffer } = subject
  const chunks = Math.floor(subject.storedBytes / chunkBytes)
  // Chunks that happen to be in memory are not restored: a smaller buffer has more of them.
  const restoredBefore = pool.stats().restoredPages
  const start = processorNs()
  for (let count = 0; count < scatteredChunks; count++) {
    const chunk = Math.floor(chunks * ((subject.touched++ * goldenShare) % 1))
    using pin = await buffer.pin({ offset: chunk * chunkBytes, length: chunkBytes, write })
    void pin
  }
  return (processorNs() - start) / (pool.stats().restoredPages - restoredBefore)
}

/** Processor time of this process: what else the machine does is not in it, and nothing here waits for anything. */
export function processorNs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) * 1000
}

function medianOf(values: readonly number[]): number {
  return spreadOf(values)?.median ?? Number.NaN
}
