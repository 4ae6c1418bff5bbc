import { setImmediate as nextTurn } from 'node:timers/promises'
import { nullBackup } from '@spillway/core'
import { Pool } from '@spillway/pool'
import { gibibyte, mebibyte } from '../sizes.ts'
import {
  comparePageCost,
  freshBytes,
  type PageCost,
  type PageWork,
  pageSizeBytes,
  pageWorks,
  type Subject,
  touchAll,
} from './page-costs.ts'

/** Pairs of measurements of each kind at each size: with so many the median is good to 2 % on a busy machine. */
const defaultPairs = 400

/** What a page costs when so much is backed up already. */
export interface GrowthPoint {
  readonly backedUpBytes: number
  readonly costs: Readonly<Record<PageWork, PageCost>>
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
 * same work: in this buffer, and in a new one of four times the limit. The ratio of a pair leaves out what else the machine
 * is doing.
 */
export async function measureGrowth(
  maxBytes: number,
  limitBytes: number,
  signal: AbortSignal,
  progress: (doneBytes: number) => void,
  pairs = defaultPairs,
): Promise<Growth> {
  const startMs = performance.now()
  await using backup = nullBackup()
  await using smallBackup = nullBackup()
  await using pool = new Pool({ limitBytes, backup })
  await using smallPool = new Pool({ limitBytes, backup: smallBackup })
  const sizes = growthSizes(maxBytes)
  const mostFresh = (sizes.length + 1) * freshBytes(pairs, limitBytes)
  const buffer = await pool.allocate(maxBytes + limitBytes + mostFresh, { label: 'large' })
  let written = 0
  let before: number | undefined
  let grown = 0
  const points: GrowthPoint[] = []
  for (const size of sizes) {
    for (const goal = size + limitBytes; written < goal; ) {
      signal.throwIfAborted()
      const end = Math.min(goal, written + 256 * mebibyte)
      await touchAll(buffer, written, end)
      written = end
      progress(written)
    }
    // The pool is full: what grows from here on is what is known of backed-up pages.
    before ??= await heapBytes()
    grown = (await heapBytes()) - before
    const large: Subject = { pool, buffer, storedBytes: size, freshFrom: written, touched: 0 }
    points.push({ backedUpBytes: size, costs: await measurePoint(large, smallPool, pairs) })
    written = large.freshFrom
  }
  const { metadataBytes, backedUpBytes } = pool.stats()
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

async function measurePoint(large: Subject, smallPool: Pool, pairs: number): Promise<GrowthPoint['costs']> {
  const { limitBytes } = smallPool.stats()
  const storedBytes = 4 * limitBytes
  await using buffer = await smallPool.allocate(storedBytes + freshBytes(pairs, limitBytes), {
    label: 'small',
  })
  await touchAll(buffer, 0, storedBytes)
  const small: Subject = { pool: smallPool, buffer, storedBytes, freshFrom: storedBytes, touched: 0 }
  const costs = {} as Record<PageWork, PageCost>
  for (const work of pageWorks) {
    // Rewrites leave gaps among the live handles, which later restores meet.
    costs[work] = await comparePageCost(work, large, small, work === 'rewrite' ? pairs / 4 : pairs)
  }
  return costs
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
