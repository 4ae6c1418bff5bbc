import { randomBytes } from 'node:crypto'
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { pageHttpHandler, S3Backup } from '@spillway/backup-s3'
import type { HandleRun } from '@spillway/core'
import { Random } from '../random.ts'
import { gibibyte, mebibyte } from '../sizes.ts'
import { LatencyHistogram, type LatencySummary } from '../statistics.ts'
import type { S3Access } from './server.ts'

/** What the process of the loops is told to do. */
export interface LoopsOrder {
  readonly access: S3Access
  readonly rounds: number
  readonly concurrency: number
  readonly budgetMs: number | undefined
}

/** One way to move bytes to or from the service: figures of every round. */
export interface LoopFigures {
  readonly way: 'bare 8 MiB objects' | 'one object per page' | 'backup-s3'
  readonly verb: 'PUT' | 'GET'
  readonly bytesPerSecond: number[]
  /** Processor milliseconds of this process per 8 MiB, and per request. */
  readonly cpuMsPer8MiB: number[]
  readonly cpuMsPerRequest: number[]
}

export interface LoopsFindings {
  readonly loops: readonly LoopFigures[]
  readonly putsPerGiB: number
  readonly getsPerGiB: number
  /** GETs of segments that were asked for again because they were slow; they are in `getsPerGiB`. */
  readonly hedgesPerGiB: number
  /** Bytes read beyond what was asked for, per page restored alone from a random place. */
  readonly overReadBytesPerPage: number
  readonly segmentRestore: LatencySummary | undefined
  readonly pageRestore: LatencySummary | undefined
  /** Pages and segments that came back wrong. */
  readonly wrongAnswers: number
}

const segmentBytes = 8 * mebibyte
const pageBytes = 4096
const segmentsPerRound = 16
const pagesPerRound = 256
/** Below this budget all rounds are small. */
const tightMs = 4000

/**
 * Moves the same bytes in three ways, in turn and at the same concurrency: with bare calls of the SDK, an object of 8 MiB each;
 * with bare calls, an object for each page; and with backup-s3. Whatever comes back is compared.
 */
export async function measureLoops(order: LoopsOrder): Promise<LoopsFindings> {
  const { access, rounds, concurrency, budgetMs } = order
  const { bucket } = access
  const endMs = performance.now() + (budgetMs ?? Number.POSITIVE_INFINITY)
  const root = `spillway-bench-${randomBytes(6).toString('hex')}/`
  const bare = new S3Client(access.clientConfig)
  const client = new S3Client({ ...access.clientConfig, requestHandler: pageHttpHandler() })
  await using backup = await S3Backup.open({ client, bucket, prefix: `${root}backup/`, compaction: false })
  const source = Array.from({ length: concurrency }, () => randomBytes(segmentBytes))
  const target = Array.from({ length: concurrency }, () => Buffer.alloc(segmentBytes))
  const segmentRestores = new LatencyHistogram()
  const pageRestores = new LatencyHistogram()
  const loops = new Map<string, LoopFigures>()
  let wrongAnswers = 0
  let overReadBytes = 0
  let pagesRead = 0
  let segmentGets = 0
  let segmentHedges = 0
  let segmentsRead = 0

  const run = async (
    way: LoopFigures['way'],
    verb: LoopFigures['verb'],
    count: number,
    counts: boolean,
    bytes: number,
    call: (worker: number, index: number) => Promise<void>,
  ) => {
    const cpuBefore = process.cpuUsage()
    const startMs = performance.now()
    await inParallel(concurrency, count, call)
    const seconds = (performance.now() - startMs) / 1000
    const { user, system } = process.cpuUsage(cpuBefore)
    if (!counts) return
    const key = `${way} ${verb}`
    const figures = loops.get(key) ?? { way, verb, bytesPerSecond: [], cpuMsPer8MiB: [], cpuMsPerRequest: [] }
    loops.set(key, figures)
    const cpuMs = (user + system) / 1000
    figures.bytesPerSecond.push((count * bytes) / seconds)
    figures.cpuMsPer8MiB.push((cpuMs * segmentBytes) / (count * bytes))
    figures.cpuMsPerRequest.push(cpuMs / count)
  }
  const check = (worker: number, index: number) => {
    if (!target[worker].equals(source[index % concurrency])) wrongAnswers++
    target[worker].fill(0, 0, pageBytes)
  }

  for (let round = 0; round <= rounds; round++) {
    const counts = round > 0
    // When the time is up, what is left of the rounds moves less; a small budget has small rounds from the start.
    const share = performance.now() > endMs || (budgetMs ?? tightMs) < tightMs ? 1 / 4 : 1
    const segments = segmentsPerRound * share
    const segmentKey = (index: number) => `${root}bare/${index % concurrency}`
    await run('bare 8 MiB objects', 'PUT', segments, counts, segmentBytes, async (_, index) => {
      await bare.send(
        new PutObjectCommand({ Bucket: bucket, Key: segmentKey(index), Body: source[index % concurrency] }),
      )
    })
    await run('bare 8 MiB objects', 'GET', segments, counts, segmentBytes, async (worker, index) => {
      const { Body } = await bare.send(new GetObjectCommand({ Bucket: bucket, Key: segmentKey(index) }))
      target[worker].set(await Body!.transformToByteArray())
      check(worker, index)
    })

    const handles: (readonly HandleRun[])[] = []
    await run('backup-s3', 'PUT', segments, counts, segmentBytes, async (_, index) => {
      const result = await backup.backupPages([source[index % concurrency]])
      if (result.error !== undefined) throw result.error
      handles[index] = result.handles
    })
    const getsBefore = pageGets(backup)
    const hedgesBefore = backup.stats().hedges
    await run('backup-s3', 'GET', segments, counts, segmentBytes, async (worker, index) => {
      const startMs = performance.now()
      const { error } = await backup.copyPages(handles[index], [target[worker]])
      if (error !== undefined) throw error
      if (counts) segmentRestores.record(performance.now() - startMs)
      check(worker, index)
    })

    segmentGets += pageGets(backup) - getsBefore
    segmentHedges += backup.stats().hedges - hedgesBefore
    segmentsRead += segments

    const random = new Random(round)
    const overReadBefore = backup.stats().overReadBytes
    await inParallel(concurrency, pagesPerRound * share, async (worker) => {
      const index = random.below(segments)
      const runs = handles[index]
      const at = random.below(runs[0].count)
      const startMs = performance.now()
      const page = target[worker].subarray(0, pageBytes)
      const { error } = await backup.copyPages([{ first: runs[0].first + at, count: 1 }], [page])
      if (error !== undefined) throw error
      if (counts) pageRestores.record(performance.now() - startMs)
      const expected = source[index % concurrency].subarray(at * pageBytes, (at + 1) * pageBytes)
      if (!page.equals(expected)) wrongAnswers++
      pagesRead++
    })
    overReadBytes += backup.stats().overReadBytes - overReadBefore
    for (const runs of handles) await backup.drop(runs)

    const pages = pagesPerRound * share
    const pageKey = (index: number) => `${root}page/${index}`
    const pageOf = (index: number) => source[0].subarray(index * pageBytes, (index + 1) * pageBytes)
    await run('one object per page', 'PUT', pages, counts, pageBytes, async (_, index) => {
      await bare.send(new PutObjectCommand({ Bucket: bucket, Key: pageKey(index), Body: pageOf(index) }))
    })
    await run('one object per page', 'GET', pages, counts, pageBytes, async (_, index) => {
      const { Body } = await bare.send(new GetObjectCommand({ Bucket: bucket, Key: pageKey(index) }))
      if (!Buffer.from(await Body!.transformToByteArray()).equals(pageOf(index))) wrongAnswers++
    })
  }
  const { costs } = backup.stats()
  await removeObjects(bare, bucket, root, concurrency)
  return {
    loops: [...loops.values()],
    putsPerGiB: costs.putsPerGiB,
    hedgesPerGiB: (segmentHedges / segmentsRead) * (gibibyte / segmentBytes),
    getsPerGiB: (segmentGets / segmentsRead) * (gibibyte / segmentBytes),
    overReadBytesPerPage: pagesRead === 0 ? 0 : overReadBytes / pagesRead,
    segmentRestore: segmentRestores.summary(),
    pageRestore: pageRestores.summary(),
    wrongAnswers,
  }
}

/** GET requests so far that moved pages, retries and hedges included. */
function pageGets(backup: S3Backup): number {
  const { requests, housekeeping } = backup.stats().costs.verbs.get
  return requests - housekeeping
}

async function inParallel(
  workers: number,
  count: number,
  call: (worker: number, index: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const work = async (worker: number) => {
    while (next < count) await call(worker, next++)
  }
  await Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)))
}

async function removeObjects(
  client: S3Client,
  bucket: string,
  root: string,
  concurrency: number,
): Promise<void> {
  const { DeleteObjectsCommand } = await import('@aws-sdk/client-s3')
  const keys = [
    ...Array.from({ length: concurrency }, (_, index) => `${root}bare/${index}`),
    ...Array.from({ length: pagesPerRound }, (_, index) => `${root}page/${index}`),
  ]
  const Objects = keys.map((Key) => ({ Key }))
  await client.send(new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects, Quiet: true } }))
}
