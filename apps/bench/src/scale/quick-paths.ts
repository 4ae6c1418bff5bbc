import { fileURLToPath, pathToFileURL } from 'node:url'
import { nullBackup } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { mebibyte } from '../sizes.ts'
import { type Spread, spreadOf } from '../statistics.ts'
import { chunkBytes, processorNs } from './page-costs.ts'

/** How long to measure: the defaults give steady figures. */
const pinEffort = { rounds: 7, count: 50_000 }
const allocatorEffort = { rounds: 7, roundMs: 50 }

/** Nanoseconds of processor time to pin a resident range and let it go. */
export interface PinCost {
  readonly oneChunkNs: Spread
  readonly manyChunksNs: Spread
  readonly manyChunks: number
  /** What every further chunk adds. */
  readonly perChunkNs: number
}

export async function measurePins({ rounds, count } = pinEffort): Promise<PinCost> {
  const manyChunks = 64
  await using backup = nullBackup()
  await using pool = new Pool({ limitBytes: 256 * mebibyte, backup })
  const lengthBytes = manyChunks * chunkBytes
  await using buffer = await pool.allocate(lengthBytes)
  buffer.advise('random')
  await timePins(buffer, lengthBytes, count / 10)
  const one: number[] = []
  const many: number[] = []
  for (let round = 0; round < rounds; round++) {
    one.push(await timePins(buffer, chunkBytes, count))
    many.push(await timePins(buffer, lengthBytes, count / 10))
  }
  const [oneChunkNs, manyChunksNs] = [spreadOf(one)!, spreadOf(many)!]
  const perChunkNs = (manyChunksNs.median - oneChunkNs.median) / (manyChunks - 1)
  return { oneChunkNs, manyChunksNs, manyChunks, perChunkNs }
}

async function timePins(buffer: PagedBuffer, length: number, count: number): Promise<number> {
  const options = { offset: 0, length }
  const start = processorNs()
  for (let done = 0; done < count; done++) {
    const pin = await buffer.pin(options)
    pin.release()
  }
  return (processorNs() - start) / count
}

/** The allocator of a pool by itself: what is taken and given back per second of processor time. */
export interface AllocatorSpeed {
  /** Pages of 4 KiB, each taken and given back. */
  readonly singlePagesPerSecond: Spread
  /** Bytes in chunks of 2 MiB, each taken and given back. */
  readonly chunkBytesPerSecond: Spread
}

/** The part of the pool's allocator that is measured; it is internal, so it is loaded from the sources of the checkout. */
interface Allocator {
  readonly slabs: { provider: unknown }
  allocate(order: number): number
  free(frame: number, order: number, zero: boolean): void
}

/** Undefined outside of a checkout. */
export async function measureAllocator(effort = allocatorEffort): Promise<AllocatorSpeed | undefined> {
  const source = (path: string) =>
    pathToFileURL(fileURLToPath(new URL(`../../../packages/pool/src/${path}`, rootOf(import.meta.url)))).href
  let allocator: (limitPages: number) => Allocator
  try {
    const { Pages } = await import(source('memory/pages.ts'))
    const { ResidentLimit } = await import(source('memory/resident-limit.ts'))
    const { ResizableProvider } = await import(source('providers/resizable.ts'))
    allocator = (limitPages) => {
      const pages = new Pages(4096, 9, new ResidentLimit(limitPages * 4096), limitPages) as Allocator
      pages.slabs.provider = new ResizableProvider()
      return pages
    }
  } catch {
    return undefined
  }
  const limitPages = (64 * mebibyte) / 4096
  return {
    singlePagesPerSecond: timeAllocator(allocator(limitPages), 0, limitPages, effort),
    chunkBytesPerSecond: scaled(
      timeAllocator(allocator(limitPages), 9, limitPages / 512, effort),
      chunkBytes,
    ),
  }
}

/** The directory of the program, whether it runs built (`dist`) or from the sources (`src/scale`). */
function rootOf(url: string): URL {
  return new URL(url.endsWith('.ts') ? '../' : './', url)
}

/** Takes `count` chunks and gives them all back, again and again; pairs per second. */
function timeAllocator(
  pages: Allocator,
  order: number,
  count: number,
  effort: typeof allocatorEffort,
): Spread {
  const { rounds, roundMs } = effort
  const frames = new Float64Array(count)
  const pairsPerSecond: number[] = []
  for (let round = 0; round <= rounds; round++) {
    const startMs = performance.now()
    const start = processorNs()
    let done = 0
    do {
      for (let index = 0; index < count; index++) frames[index] = pages.allocate(order)
      for (let index = 0; index < count; index++) pages.free(frames[index], order, false)
      done += count
    } while (performance.now() - startMs < roundMs)
    if (round > 0) pairsPerSecond.push((done / (processorNs() - start)) * 1e9)
  }
  return spreadOf(pairsPerSecond)!
}

function scaled({ min, median, max }: Spread, factor: number): Spread {
  return { min: min * factor, median: median * factor, max: max * factor }
}
