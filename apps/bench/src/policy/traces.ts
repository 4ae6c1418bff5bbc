import { Random, shuffledIndexes, ZipfRanks } from '../random.ts'
import { UsageError } from '../usage-error.ts'
import type { Trace } from './trace.ts'

/** What a trace is made from: the same values make the same trace. */
export interface TraceShape {
  /** Pages that fit; footprints are multiples of it. */
  readonly capacityPages: number
  readonly accesses: number
  readonly seed: number
}

interface TraceKind {
  readonly name: string
  readonly description: string
  /** On a loop the pool is compared with the optimum as well. */
  readonly isLoop?: boolean
  /** Pages of each buffer, as multiples of the capacity. */
  readonly buffers: readonly number[]
  /** Gives the accesses one by one: a page, or `written(page)`. */
  readonly draw: (capacityPages: number, random: Random) => () => number
}

/** The traces by name, in the order of the table. */
export const traceKinds: readonly TraceKind[] = [
  ...[0.8, 0.99].flatMap(zipfKinds),
  {
    name: 'hot-set-beside-writer',
    description: 'reads of a set of half the limit; one access in ten writes a page of a log',
    buffers: [0.5, 16],
    draw: hotSetBeside(10, written),
  },
  {
    name: 'hot-set-beside-scan',
    description: 'reads of a set of half the limit; every second access goes on in a scan',
    buffers: [0.5, 16],
    draw: hotSetBeside(2, (page) => page),
  },
  ...[0.9, 1.2, 2].map(loopKind),
  {
    name: 'moving-hot-set',
    description: 'nine accesses in ten to a set of half the limit, which is another after 8 × the limit',
    buffers: [8],
    draw: movingHotSet,
  },
  {
    name: 'readers',
    description:
      'four readers of one buffer, each a sixteenth of the limit behind; four of buffers of their own',
    buffers: [4, 4, 4, 4, 4],
    draw: readers,
  },
  {
    name: 'bursts',
    description: 'half of the accesses zipf 0.9; half to new pages, four times each in a short while',
    buffers: [2, 16],
    draw: bursts,
  },
]

/** Makes one of the traces. Throws `UsageError` where the shape makes none. */
export function makeTrace(kind: TraceKind, shape: TraceShape): Trace {
  const { capacityPages, accesses, seed } = shape
  if (capacityPages < 16)
    throw new UsageError(`${capacityPages} pages are too few to make a trace; take at least 16`)
  const next = kind.draw(capacityPages, new Random(seed))
  const pages = new Uint32Array(accesses)
  const writes = new Uint8Array(accesses)
  for (let index = 0; index < accesses; index++) {
    const access = next()
    writes[index] = access < 0 ? 1 : 0
    pages[index] = access < 0 ? -1 - access : access
  }
  const bufferPages = kind.buffers.map((share) => Math.ceil(share * capacityPages))
  return { name: kind.name, bufferPages, pages, writes }
}

/** Marks an access as a write. */
function written(page: number): number {
  return -1 - page
}

/** A zipf set of four times the limit, with a tenth of the accesses writing in three ways. */
function zipfKinds(skew: number): TraceKind[] {
  const makeSet = (capacityPages: number, random: Random) => {
    const ranks = new ZipfRanks(4 * capacityPages, skew)
    const pageOfRank = shuffledIndexes(4 * capacityPages, random)
    return () => pageOfRank[ranks.draw(random)]
  }
  return [
    {
      name: `zipf-${skew}`,
      description: 'four times the limit; every access writes with a chance of one in ten',
      buffers: [4],
      draw: (capacityPages, random) => {
        const page = makeSet(capacityPages, random)
        return () => (random.below(10) === 0 ? written(page()) : page())
      },
    },
    {
      name: `zipf-${skew}-tenth`,
      description: 'the same; every tenth page is only written, the others only read',
      buffers: [4],
      draw: (capacityPages, random) => {
        const draw = makeSet(capacityPages, random)
        return () => {
          const page = draw()
          return page % 10 === 0 ? written(page) : page
        }
      },
    },
    {
      name: `zipf-${skew}-elsewhere`,
      description: 'the same, only read; one access in ten writes a page of a log that nobody reads',
      buffers: [4, 16],
      draw: (capacityPages, random) => {
        const page = makeSet(capacityPages, random)
        let step = 0
        let logged = 0
        return () =>
          ++step % 10 === 0 ? written(4 * capacityPages + (logged++ % (16 * capacityPages))) : page()
      },
    },
  ]
}

function hotSetBeside(every: number, beside: (page: number) => number): TraceKind['draw'] {
  return (capacityPages, random) => {
    const hotPages = Math.ceil(capacityPages / 2)
    let step = 0
    let gone = 0
    return () =>
      ++step % every === 0 ? beside(hotPages + (gone++ % (16 * capacityPages))) : random.below(hotPages)
  }
}

function loopKind(factor: number): TraceKind {
  return {
    name: `loop-${factor}`,
    description: `reads ${factor} × the limit over and over, in an order that is always the same`,
    isLoop: true,
    buffers: [factor],
    draw: (capacityPages, random) => {
      // Not in the order of the pages: readahead and drop-behind have a trace of their own.
      const order = shuffledIndexes(Math.ceil(factor * capacityPages), random)
      let step = 0
      return () => order[step++ % order.length]
    },
  }
}

function movingHotSet(capacityPages: number, random: Random): () => number {
  const hotPages = Math.ceil(capacityPages / 2)
  const pageCount = 8 * capacityPages
  let step = 0
  return () => {
    const first = Math.floor(step++ / (8 * capacityPages)) * hotPages
    const page =
      random.below(10) === 0 ? random.below(pageCount) : (first + random.below(hotPages)) % pageCount
    return random.below(10) === 0 ? written(page) : page
  }
}

function readers(capacityPages: number, random: Random): () => number {
  const length = 4 * capacityPages
  const starts = [0, 1, 2, 3].map((reader) => ({
    buffer: 0,
    at: length - Math.floor((reader * capacityPages) / 16),
  }))
  for (let buffer = 1; buffer < 5; buffer++) starts.push({ buffer, at: random.below(length) })
  let step = 0
  return () => {
    const reader = starts[step++ % starts.length]
    return reader.buffer * length + (reader.at++ % length)
  }
}

function bursts(capacityPages: number, random: Random): () => number {
  const setPages = 2 * capacityPages
  const ranks = new ZipfRanks(setPages, 0.9)
  const pageOfRank = shuffledIndexes(setPages, random)
  const openPages = Math.max(1, Math.floor(capacityPages / 8))
  const open: { page: number; left: number }[] = []
  let begun = 0
  return () => {
    if (random.below(2) === 0) return pageOfRank[ranks.draw(random)]
    if (open.length < openPages) open.push({ page: setPages + (begun++ % (16 * capacityPages)), left: 4 })
    const index = random.below(open.length)
    const burst = open[index]
    if (--burst.left === 0) {
      open[index] = open[open.length - 1]
      open.pop()
    }
    return random.below(4) === 0 ? written(burst.page) : burst.page
  }
}
