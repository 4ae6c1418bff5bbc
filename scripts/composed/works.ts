/** What is measured of a backup: whole chunks, single pages, ranges through a pool, and what its bookkeeping takes. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Backup, HandleRun } from '@spillway/core'
import { Pool } from '@spillway/pool'
import { Random, ZipfRanks } from '../../apps/bench/src/random.ts'

export type Figures = Readonly<Record<string, number>>

export const pageBytes = 4096
export const chunkBytes = 2 * 2 ** 20
const chunksInFlight = 4
const pagesInFlight = 32
const rangeBytes = 64 * 1024

/** Bytes and seconds, and how late the event loop came meanwhile. */
async function timed(milliseconds: number, step: () => Promise<number>): Promise<[number, number, number]> {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  let bytes = 0
  const start = performance.now()
  delay.enable()
  while (performance.now() - start < milliseconds) bytes += await step()
  delay.disable()
  const seconds = (performance.now() - start) / 1000
  return [bytes / seconds, delay.percentile(99) / 1e6, delay.max / 1e6]
}

async function store(backup: Backup, memory: Uint8Array): Promise<readonly HandleRun[]> {
  const { handles, error } = await backup.backupPages([memory])
  if (error !== undefined) throw error
  return handles
}

async function inParallel(count: number, work: (worker: number) => Promise<void>): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, worker) => work(worker)))
}

function chunksOf(data: Uint8Array, memoryOf: (bytes: number) => Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.floor(data.byteLength / chunkBytes) }, (_, chunk) => {
    const memory = memoryOf(chunkBytes)
    memory.set(data.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes))
    return memory
  })
}

/** All of the data out, in, and dropped, over and over, four chunks of 2 MiB at once. */
export async function wholeChunks(
  backup: Backup,
  data: Uint8Array,
  milliseconds: number,
  memoryOf: (bytes: number) => Uint8Array,
): Promise<Figures> {
  const chunks = chunksOf(data, memoryOf)
  const targets = Array.from({ length: chunksInFlight }, () => memoryOf(chunkBytes))
  const handles: (readonly HandleRun[])[] = []
  const each = (work: (chunk: number, worker: number) => Promise<void>) =>
    inParallel(chunksInFlight, async (worker) => {
      for (let chunk = worker; chunk < chunks.length; chunk += chunksInFlight) await work(chunk, worker)
    })
  const out = async () => {
    await each(async (chunk) => {
      handles[chunk] = await store(backup, chunks[chunk])
    })
    return data.byteLength
  }
  const into = async () => {
    await each(async (chunk, worker) => {
      const { error } = await backup.copyPages(handles[chunk], [targets[worker]])
      if (error !== undefined) throw error
    })
    return data.byteLength
  }
  const compare = () =>
    each(async (chunk, worker) => {
      const { error } = await backup.copyPages(handles[chunk], [targets[worker]])
      if (error !== undefined) throw error
      if (Buffer.compare(targets[worker], chunks[chunk]) !== 0) throw new Error(`chunk ${chunk} is wrong`)
    })
  const drop = () => each(async (chunk) => void (await backup.drop(handles[chunk])))
  await out()
  await compare()
  const { mediumBytes, livePages } = backup.stats()
  const spaceShare = mediumBytes / (livePages * pageBytes)
  await drop()
  const [outBytesPerSecond, outP99Ms, outMaxMs] = await timed(milliseconds, async () => {
    const bytes = await out()
    await drop()
    return bytes
  })
  await out()
  const [inBytesPerSecond, inP99Ms, inMaxMs] = await timed(milliseconds, into)
  await compare()
  await drop()
  const [loopP99Ms, loopMaxMs] = [Math.max(outP99Ms, inP99Ms), Math.max(outMaxMs, inMaxMs)]
  return { outBytesPerSecond, inBytesPerSecond, spaceShare, loopP99Ms, loopMaxMs }
}

/** Random single pages, 32 at once, of a backup that holds the data. */
export async function singlePages(backup: Backup, data: Uint8Array, milliseconds: number): Promise<Figures> {
  const runs: HandleRun[] = []
  for (let start = 0; start < data.byteLength; start += chunkBytes)
    runs.push(...(await store(backup, data.subarray(start, start + chunkBytes))))
  const pages = data.byteLength / pageBytes
  const random = new Random(1)
  const targets = Array.from({ length: pagesInFlight }, () => new Uint8Array(pageBytes))
  const pagesPerChunk = chunkBytes / pageBytes
  const some = async () => {
    await inParallel(pagesInFlight, async (worker) => {
      for (let turn = 0; turn < 16; turn++) {
        const page = random.below(pages)
        const first = runs[Math.floor(page / pagesPerChunk)].first + (page % pagesPerChunk)
        const { error } = await backup.copyPages([{ first, count: 1 }], [targets[worker]])
        if (error !== undefined) throw error
        const expected = data.subarray(page * pageBytes, (page + 1) * pageBytes)
        if (Buffer.compare(targets[worker], expected) !== 0) throw new Error(`page ${page} is wrong`)
      }
    })
    return pagesInFlight * 16
  }
  await timed(milliseconds / 4, some)
  const [pagesPerSecond, loopP99Ms, loopMaxMs] = await timed(milliseconds, some)
  for (const run of runs) await backup.drop([run])
  return { pagesPerSecond, loopP99Ms, loopMaxMs }
}

/** Ranges of 64 KiB through a pool whose limit is 32 MiB, four at once; one of ten is rewritten. */
export async function rangesThroughPool(
  backup: Backup,
  { bytes, draw }: { bytes: number; draw: 'uniform' | 'zipf' },
  milliseconds: number,
): Promise<Figures> {
  await using pool = new Pool({ limitBytes: 32 * 2 ** 20, backup })
  const ranges = bytes / rangeBytes
  const random = new Random(1)
  const ranks = new ZipfRanks(ranges, 0.99)
  const sources = Array.from({ length: chunksInFlight }, () => Buffer.alloc(rangeBytes))
  const contentOf = (range: number, worker: number) => {
    for (let word = 0; word < rangeBytes; word += 4)
      sources[worker].writeUInt32LE((range * 40503 + word * 2654435) >>> 0, word)
    return sources[worker]
  }
  const buffer = await pool.allocate(bytes)
  for (let range = 0; range < ranges; range++) await buffer.write(range * rangeBytes, contentOf(range, 0))
  const targets = Array.from({ length: chunksInFlight }, () => Buffer.alloc(rangeBytes))
  // Popular ranges do not lie side by side.
  const next = () => (draw === 'uniform' ? random.below(ranges) : (ranks.draw(random) * 7919) % ranges)
  const some = async () => {
    await inParallel(chunksInFlight, async (worker) => {
      for (let turn = 0; turn < 16; turn++) {
        const range = next()
        if (random.below(10) === 0) await buffer.write(range * rangeBytes, contentOf(range, worker))
        else await buffer.read(range * rangeBytes, targets[worker])
      }
    })
    return chunksInFlight * 16 * rangeBytes
  }
  await timed(milliseconds, some)
  const [bytesPerSecond, loopP99Ms, loopMaxMs] = await timed(milliseconds, some)
  for (let range = 0; range < ranges; range++) {
    await buffer.read(range * rangeBytes, targets[0])
    if (!targets[0].equals(contentOf(range, 0))) throw new Error(`range ${range} is wrong`)
  }
  return { bytesPerSecond, loopP99Ms, loopMaxMs }
}
