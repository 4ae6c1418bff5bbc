import { type Backup, faultyBackup } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { chooseBackend } from '../backends.ts'
import { spoiledBackup } from '../case/spoiled-backup.ts'
import { Random } from '../random.ts'
import type { S3Access } from '../s3/server.ts'
import { mebibyte } from '../sizes.ts'
import { ExpectedPages, pageSizeBytes } from './expected.ts'
import { drawOperation, type SoakBuffer, SoakOperations, type SoakTally } from './operations.ts'

export interface StageOptions {
  readonly backend: string
  readonly limitBytes: number
  readonly overcommit: number
  readonly durationMs: number
  readonly faults: boolean
  readonly seed: number
  readonly directory: string
  readonly s3?: S3Access | undefined
  readonly signal: AbortSignal
  readonly tally: SoakTally
}

const workers = 4
const faultRate = 0.02
const longestDelayMs = 2

/**
 * One pool at one overcommitment, for a while:
 *
 *   open ── write all ── random operations, four at a time, with faults ── heal ── read all ── free ── nothing may be left
 *
 * Each worker has buffers of its own, so that what a page must hold is certain; what they share is the pool's memory.
 */
export async function runStage(options: StageOptions): Promise<void> {
  const { limitBytes, overcommit, seed } = options
  const dataBytes = Math.ceil((limitBytes * overcommit) / mebibyte) * mebibyte
  const { description, settings, spoiler } = chooseBackend(options.backend)
  const opened = await description.open({
    capacityBytes: dataBytes + 2 * limitBytes + 64 * mebibyte,
    pageSizeBytes,
    directory: options.directory,
    io: 'auto',
    checksums: true,
    s3: options.s3,
    warmBytes: 16 * mebibyte,
    ...settings,
  })
  await using inner = spoiler === undefined ? opened : spoiledBackup(opened, spoiler)
  const faulty = faultyBackup(inner, {
    seed,
    maxRecordedCalls: 0,
    ...(options.faults ? { random: { rate: faultRate, maxDelayMs: longestDelayMs } } : {}),
  })
  await using pool = new Pool({ limitBytes, backup: faulty, pageSizeBytes, maxOrder: 6, whenFull: 'wait' })
  await Promise.all(
    Array.from({ length: workers }, (_, index) => runWorker(pool, index, dataBytes / workers, options)),
  )
  faulty.heal()
  await readAndFree(pool, inner, options)
}

const buffersOf = new WeakMap<Pool, SoakBuffer[]>()

async function runWorker(
  pool: Pool,
  index: number,
  shareBytes: number,
  options: StageOptions,
): Promise<void> {
  const { tally, seed, durationMs, signal } = options
  const endMs = performance.now() + durationMs
  const random = new Random(seed * workers + index)
  const operations = new SoakOperations(pool, random, tally)
  const all = buffersOf.get(pool) ?? []
  buffersOf.set(pool, all)
  const targets: SoakBuffer[] = []
  for (let left = shareBytes / pageSizeBytes; left > 0; ) {
    const pages = Math.min(left, 1 + random.below(Math.min(1024, shareBytes / pageSizeBytes)))
    targets.push(await openBuffer(pool, pages, random))
    left -= pages
  }
  all.push(...targets)
  // Nothing is at the limit before all is written.
  for (const target of targets) {
    for (let page = 0; page < target.expected.pageCount / 64; page++) await operations.run('write', target)
  }
  while (performance.now() < endMs && tally.problems.length === 0) {
    signal.throwIfAborted()
    const target = targets[random.below(targets.length)]
    const operation = drawOperation(random)
    if (operation === 'replace') {
      await target.buffer.free()
      Object.assign(target, await openBuffer(pool, target.expected.pageCount, random))
    } else await operations.run(operation, target)
    tally.operations++
    if (random.below(8) === 0) await new Promise((resolve) => setImmediate(resolve))
  }
}

async function openBuffer(pool: Pool, pages: number, random: Random): Promise<SoakBuffer> {
  const buffer: PagedBuffer = await pool.allocate(pages * pageSizeBytes)
  return { buffer, expected: new ExpectedPages(pages, random.nextInteger()) }
}

/** Everything is read once more, without faults; then everything is freed, and nothing may be left anywhere. */
async function readAndFree(pool: Pool, inner: Backup, { tally, seed }: StageOptions): Promise<void> {
  const operations = new SoakOperations(pool, new Random(seed), tally)
  for (const target of buffersOf.get(pool) ?? []) {
    await operations.readAll(target)
    await target.buffer.free()
  }
  const { inUseBytes, residentBytes, limitBytes, dropFailures } = pool.stats()
  const { livePages } = inner.stats()
  if (inUseBytes > 0)
    operations.problem(`${inUseBytes} bytes of memory are in use after every buffer was freed`)
  if (residentBytes > limitBytes)
    operations.problem(`${residentBytes} bytes are resident, the limit is ${limitBytes}`)
  // What a backup refused to drop is still known, and dropped later.
  if (livePages > dropFailures) {
    operations.problem(`${livePages} pages are left in the backup after every buffer was freed`)
  }
}
