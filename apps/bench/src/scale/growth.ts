import { setImmediate as nextTurn } from 'node:timers/promises'
import { nullBackup } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { gibibyte, mebibyte } from '../sizes.ts'
import { spreadOf } from '../statistics.ts'

export const chunkBytes = 2 * mebibyte
export const pageSizeBytes = 4096
/** Pairs of measurements at each size. */
const pairs = 24
/** What one measurement makes resident, at most. */
const largestPieceBytes = 64 * mebibyte
/** Chunks restored for one measurement. */
const restoredChunks = 1024
/** Chunks are restored in steps of this share of all there are: no two near each other, none twice in a round. */
const goldenShare = (Math.sqrt(5) - 1) / 2

/** What a page costs when so much is backed up already, beside the same work on a new buffer in the same moments. */
export interface GrowthPoint {
  readonly backedUpBytes: number
  /** Nanoseconds of processor time per page to make it resident, zeroed, and to evict another for it: the median. */
  readonly evictNs: number
  /** The same in a new buffer, of four times the limit. */
  readonly smallEvictNs: number
  /** Median of the ratios of the pairs: 1 is flat. */
  readonly evictRatio: number
  /** Nanoseconds of processor time per page to restore one of chunks scattered over the buffer, and to evict another for it. */
  readonly restoreNs: number
  readonly smallRestoreNs: number
  readonly restoreRatio: number
}

export interface Growth {
  readonly points: readonly GrowthPoint[]
  readonly metadataBytes: number
  readonly backedUpPages: number
  /** What heap and array buffers grew by for them. */
  readonly heapBytes: number
  readonly freeNsPerPage: number
  readonly seconds: number
}

/** The sizes at which is measured: 1 GiB, 4 GiB, … up to `maxBytes`. */
export function growthSizes(maxBytes: number): number[] {
  const sizes: number[] = []
  for (let size = Math.min(gibibyte, maxBytes / 4); size < maxBytes; size *= 4) sizes.push(size)
  return [...sizes, maxBytes]
}

/**
 * Writes one buffer chunk by chunk until `maxBytes` of it are backed up into the null backup. At each size it does pairs of the
 * same work: in this buffer, and in a new one beside it. The ratio of a pair leaves out what else the machine is doing.
 */
export async function measureGrowth(
  maxBytes: number,
  limitBytes: number,
  signal: AbortSignal,
  progress: (doneBytes: number) => void,
): Promise<Growth> {
  const startMs = performance.now()
  await using backup = nullBackup()
  await using smallBackup = nullBackup()
  await using pool = new Pool({ limitBytes, backup })
  await using smallPool = new Pool({ limitBytes, backup: smallBackup })
  const buffer = await pool.allocate(maxBytes + limitBytes + 2 * gibibyte, { label: 'large' })
  await warmUp(smallPool)
  let written = 0
  let before: number | undefined
  const points: GrowthPoint[] = []
  for (const size of growthSizes(maxBytes)) {
    for (const goal = size + limitBytes; written < goal; ) {
      signal.throwIfAborted()
      const end = Math.min(goal, written + 256 * mebibyte)
      await touchAll(buffer, written, end)
      written = end
      progress(written)
    }
    const pieceBytes = Math.min(largestPieceBytes, size / 16)
    // The pool is full: what grows from here on is what is known of backed-up pages.
    before ??= await heapBytes()
    points.push(await measurePoint({ pool, buffer, smallPool, written, pieceBytes, size }))
    written += pairs * pieceBytes
  }
  const { metadataBytes, backedUpBytes } = pool.stats()
  const grown = (await heapBytes()) - before!
  const freeStartMs = performance.now()
  await buffer.free()
  const freeMs = performance.now() - freeStartMs
  return {
    points,
    metadataBytes,
    backedUpPages: backedUpBytes / pageSizeBytes,
    heapBytes: grown,
    freeNsPerPage: (freeMs * 1e6) / (backedUpBytes / pageSizeBytes),
    seconds: (performance.now() - startMs) / 1000,
  }
}

interface PointOptions {
  readonly pool: Pool
  readonly buffer: PagedBuffer
  readonly smallPool: Pool
  readonly written: number
  readonly pieceBytes: number
  readonly size: number
}

async function measurePoint(options: PointOptions): Promise<GrowthPoint> {
  const { pool, buffer, smallPool, written, pieceBytes, size } = options
  const evict: number[] = []
  const smallEvict: number[] = []
  const restore: number[] = []
  const smallRestore: number[] = []
  const smallBytes = 4 * smallPool.stats().limitBytes
  await using small = await smallPool.allocate(smallBytes + pairs * pieceBytes, { label: 'small' })
  await touchAll(small, 0, smallBytes)
  for (let pair = 0; pair < pairs; pair++) {
    const [from, smallFrom] = [written + pair * pieceBytes, smallBytes + pair * pieceBytes]
    // Every second pair the other way round: what comes first may be at an advantage.
    for (const large of pair % 2 === 0 ? [true, false] : [false, true]) {
      if (large) {
        evict.push(await touchAll(buffer, from, from + pieceBytes))
        restore.push(await restoreSome(pool, buffer, written))
      } else {
        smallEvict.push(await touchAll(small, smallFrom, smallFrom + pieceBytes))
        smallRestore.push(await restoreSome(smallPool, small, smallBytes))
      }
    }
  }
  return {
    backedUpBytes: size,
    evictNs: medianOf(evict),
    smallEvictNs: medianOf(smallEvict),
    evictRatio: medianOf(evict.map((ns, pair) => ns / smallEvict[pair])),
    restoreNs: medianOf(restore),
    smallRestoreNs: medianOf(smallRestore),
    restoreRatio: medianOf(restore.map((ns, pair) => ns / smallRestore[pair])),
  }
}

async function warmUp(pool: Pool): Promise<void> {
  const bytes = 4 * pool.stats().limitBytes
  await using buffer = await pool.allocate(bytes)
  await touchAll(buffer, 0, bytes)
  await restoreSome(pool, buffer, bytes)
}

/** Pins every chunk of a range for writing; nanoseconds of processor time per page. */
async function touchAll(buffer: PagedBuffer, from: number, to: number): Promise<number> {
  const start = processorNs()
  for (let offset = from; offset < to; offset += chunkBytes) {
    using pin = await buffer.pin({ offset, length: Math.min(chunkBytes, to - offset), write: true })
    pin.spans[0][0] = 1
  }
  return (processorNs() - start) / ((to - from) / pageSizeBytes)
}

/** Pins chunks scattered over the first `extentBytes` for reading, more than the limit holds; processor time as above. */
async function restoreSome(pool: Pool, buffer: PagedBuffer, extentBytes: number): Promise<number> {
  const chunks = Math.floor(extentBytes / chunkBytes)
  // Chunks that happen to be in memory are not restored: a smaller buffer has more of them.
  const restoredBefore = pool.stats().restoredPages
  const start = processorNs()
  for (let count = 0; count < restoredChunks; count++) {
    using pin = await buffer.pin({
      offset: Math.floor(chunks * ((count * goldenShare) % 1)) * chunkBytes,
      length: chunkBytes,
    })
    void pin
  }
  return (processorNs() - start) / (pool.stats().restoredPages - restoredBefore)
}

/** Processor time of this process: what else the machine does is not in it, and nothing here waits for anything. */
function processorNs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) * 1000
}

/** Bytes of the JavaScript heap and of array buffers, after a full collection where that can be asked for. */
export async function heapBytes(): Promise<number> {
  // Memory of array buffers goes in a turn of its own.
  for (let time = 0; time < 3; time++) {
    globalThis.gc?.()
    await nextTurn()
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

export function medianOf(values: readonly number[]): number {
  return spreadOf(values)?.median ?? Number.NaN
}
