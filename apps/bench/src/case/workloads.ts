import { Random, shuffledIndexes, ZipfRanks } from '../random.ts'
import type { Touch } from './store.ts'

/** Share of the touches that rewrite what they touch. */
export const rewrittenShare = 0.1
/** Bytes of a touch in the zipf workload. */
export const rangeBytes = 64 * 1024
/** Skew of the zipf workload: 0.99 is what key-value benchmarks use. */
export const zipfSkew = 0.99

export interface WorkloadShape {
  readonly bufferCount: number
  readonly bufferBytes: number
  readonly pageSizeBytes: number
  readonly seed: number
}

export interface Workload {
  readonly name: string
  readonly title: string
  /** What one touch is, in words. */
  readonly description: string
  /** Bytes of the chunks that buffers should be made of; without it the pool decides. */
  readonly chunkBytes?: number | 'page'
  /** Touches in flight, where that is part of the workload. */
  readonly depth?: number
  /** How many touches one round has. */
  touchesPerRound(shape: WorkloadShape): number
  /** The touches of one round; every round differs, every run of one seed is the same. */
  touches(shape: WorkloadShape, round: number): Iterable<Touch>
}

function roundRandom(shape: WorkloadShape, round: number): Random {
  return new Random(shape.seed * 1000 + round)
}

function wholeBuffer(buffer: number, shape: WorkloadShape, write: boolean): Touch {
  return { buffer, offsetBytes: 0, lengthBytes: shape.bufferBytes, write }
}

const sweep: Workload = {
  name: 'sweep',
  title: 'Sweep',
  description: 'whole buffers in order, each once a round, 10 % rewritten',
  touchesPerRound: ({ bufferCount }) => bufferCount,
  *touches(shape, round) {
    const random = roundRandom(shape, round)
    for (let buffer = 0; buffer < shape.bufferCount; buffer++) {
      yield wholeBuffer(buffer, shape, random.next() < rewrittenShare)
    }
  },
}

const random: Workload = {
  name: 'random',
  title: 'Random',
  description: 'whole buffers drawn at random, as many a round as there are, 10 % rewritten',
  touchesPerRound: ({ bufferCount }) => bufferCount,
  *touches(shape, round) {
    const random = roundRandom(shape, round)
    for (let count = 0; count < shape.bufferCount; count++) {
      yield wholeBuffer(random.below(shape.bufferCount), shape, random.next() < rewrittenShare)
    }
  },
}

const zipf: Workload = {
  name: 'zipf',
  title: 'Zipf',
  description: `ranges of 64 KiB, popularity zipf(${zipfSkew}) over all ranges, a quarter of the data a round, 10 % rewritten`,
  chunkBytes: rangeBytes,
  touchesPerRound: ({ bufferCount, bufferBytes }) => Math.ceil((bufferCount * bufferBytes) / rangeBytes / 4),
  *touches(shape, round) {
    const random = roundRandom(shape, round)
    const rangesPerBuffer = shape.bufferBytes / rangeBytes
    const rangeCount = shape.bufferCount * rangesPerBuffer
    const ranks = new ZipfRanks(rangeCount, zipfSkew)
    // The same ranges are popular in every round, and they are scattered over all buffers.
    const popular = shuffledIndexes(rangeCount, new Random(shape.seed))
    for (let count = 0; count < this.touchesPerRound(shape); count++) {
      const range = popular[ranks.draw(random)]
      yield {
        buffer: Math.floor(range / rangesPerBuffer),
        offsetBytes: (range % rangesPerBuffer) * rangeBytes,
        lengthBytes: rangeBytes,
        write: random.next() < rewrittenShare,
      }
    }
  },
}

/** Single pages, wherever they are: what a miss costs. Nothing is rewritten, for pages are smaller than the versions of the data. */
function singlePages(depth: number): Workload {
  return {
    name: `pages-${depth}`,
    title: `Pages, ${depth} at a time`,
    description: `single pages drawn at random from all of the data, ${depth} in flight, a quarter of them a round, none rewritten`,
    chunkBytes: 'page',
    depth,
    touchesPerRound: ({ bufferCount, bufferBytes, pageSizeBytes }) =>
      Math.ceil((bufferCount * bufferBytes) / pageSizeBytes / 4),
    *touches(shape, round) {
      const random = roundRandom(shape, round)
      const pagesPerBuffer = shape.bufferBytes / shape.pageSizeBytes
      for (let count = 0; count < this.touchesPerRound(shape); count++) {
        const page = random.below(shape.bufferCount * pagesPerBuffer)
        yield {
          buffer: Math.floor(page / pagesPerBuffer),
          offsetBytes: (page % pagesPerBuffer) * shape.pageSizeBytes,
          lengthBytes: shape.pageSizeBytes,
          write: false,
        }
      }
    },
  }
}

/** The workloads that measure single pages, by how many are in flight. */
export const pageWorkloads: readonly Workload[] = [1, 4, 32].map(singlePages)

export const workloads: readonly Workload[] = [sweep, random, zipf, ...pageWorkloads]

/** Bytes that the workload touches at a time: what a store should move at a time. */
export function unitBytesOf({ chunkBytes }: Workload, { bufferBytes, pageSizeBytes }: WorkloadShape): number {
  return chunkBytes === 'page' ? pageSizeBytes : (chunkBytes ?? bufferBytes)
}

export function workloadNamed(name: string): Workload | undefined {
  return workloads.find((workload) => workload.name === name)
}
