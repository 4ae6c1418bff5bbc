import { S3Client } from '@aws-sdk/client-s3'
import { pageHttpHandler, S3Backup } from '@spillway/backup-s3'
import { Random } from '../random.ts'
import { gibibyte } from '../sizes.ts'
import { LatencyHistogram, type LatencySummary } from '../statistics.ts'
import {
  inParallel,
  type LoopFigures,
  type Measured,
  measure,
  pageBytes,
  segmentBytes,
  type Verb,
  verbs,
  type Way,
  ways,
} from './meter.ts'
import type { S3Access } from './server.ts'
import { BareCalls, SegmentBackup, Segments } from './stores.ts'

/** What the process of the loops is told to do. */
export interface LoopsOrder {
  readonly task: 'loops'
  readonly access: S3Access
  readonly rounds: number
  readonly concurrency: number
  readonly budgetMs: number | undefined
}

export interface LoopsFindings {
  /** What ran at the other end. */
  readonly engine: string
  readonly concurrency: number
  readonly loops: readonly LoopFigures[]
  readonly putsPerGiB: number
  readonly getsPerGiB: number
  /** GETs of segments that were asked for again because they were slow; they are in `getsPerGiB`. */
  readonly hedges: number
  readonly segmentsRead: number
  /** Bytes read beyond what was asked for, per page restored alone from a random place. */
  readonly overReadBytesPerPage: number
  readonly segmentRestore: LatencySummary | undefined
  readonly pageRestore: LatencySummary | undefined
  /** Pages and segments that came back wrong. */
  readonly wrongAnswers: number
  /** Share of its data that a round moved at least: below 1 when the budget made it. */
  readonly smallestRound: number
}

const segmentsPerRound = 16
const pagesPerRound = 256
/** Below this budget all rounds are small. */
const tightMs = 5000

/**
 * Moves the same bytes in four ways, in turn and at the same concurrency: with bare calls of the SDK, an object of 8 MiB each;
 * with backup-s3 on `pageHttpHandler()` and on the SDK's own handler; and with bare calls, an object for each page. Every
 * second round goes through them backwards. Whatever comes back is compared.
 */
export async function measureLoops(order: LoopsOrder): Promise<LoopsFindings> {
  const { access, rounds, concurrency, budgetMs } = order
  const endMs = performance.now() + (budgetMs ?? Number.POSITIVE_INFINITY)
  const segments = new Segments(concurrency)
  using bare = new BareCalls(access)
  await using backup = await openBackup(access, 'page-handler', true)
  await using pageBackup = await openBackup(access, 'pages', true)
  await using sdkBackup = await openBackup(access, 'sdk-handler', false)
  const own = new SegmentBackup(backup, segments)
  // Another backup for single pages, so that requests and over-read of the one are not counted with the other.
  const ofPages = new SegmentBackup(pageBackup, segments)
  const onSdkHandler = new SegmentBackup(sdkBackup, segments)
  const segmentRestores = new LatencyHistogram()
  const pageRestores = new LatencyHistogram()
  const loops = new Map<string, LoopFigures>()
  const counters = { gets: 0, hedges: 0, segmentsRead: 0, pagesRead: 0, overReadBytes: 0 }
  let counts = false
  let count = segmentsPerRound
  let pages = pagesPerRound
  let smallestRound = 1

  const keep = (way: Way, verb: Verb, calls: number, { bytesPerSecond, cpuMs }: Measured) => {
    if (!counts) return
    const figures = loops.get(`${way} ${verb}`) ?? {
      way,
      verb,
      bytesPerSecond: [],
      cpuMsPer8MiB: [],
      cpuMsPerRequest: [],
    }
    loops.set(`${way} ${verb}`, figures)
    const bytes = way === 'one object per page' ? pageBytes : segmentBytes
    figures.bytesPerSecond.push(bytesPerSecond)
    figures.cpuMsPer8MiB.push((cpuMs * segmentBytes) / (calls * bytes))
    figures.cpuMsPerRequest.push(cpuMs / calls)
  }

  const measureBare = async () => {
    // A new object each time, as backup-s3 writes them: to overwrite is another thing on most services.
    const name = (index: number) => `segment/${index}`
    const put = (_: number, index: number) => bare.put(name(index), segments.source(index))
    keep('bare 8 MiB objects', 'PUT', count, await measure(concurrency, count, segmentBytes, put))
    const get = async (worker: number, index: number) => {
      segments.target(worker).set(await bare.get(name(index)))
      segments.check(worker, index)
    }
    keep('bare 8 MiB objects', 'GET', count, await measure(concurrency, count, segmentBytes, get))
    await bare.delete(Array.from({ length: count }, (_, index) => name(index)))
  }

  const measureBackup = async () => {
    const put = (_: number, index: number) => own.put(index)
    keep('backup-s3', 'PUT', count, await measure(concurrency, count, segmentBytes, put))
    const before = { gets: own.pageGets, hedges: backup.stats().hedges }
    const get = async (worker: number, index: number) => {
      const startMs = performance.now()
      await own.get(worker, index)
      if (counts) segmentRestores.record(performance.now() - startMs)
    }
    keep('backup-s3', 'GET', count, await measure(concurrency, count, segmentBytes, get))
    counters.gets += own.pageGets - before.gets
    counters.hedges += backup.stats().hedges - before.hedges
    counters.segmentsRead += count
    await own.dropAll()
    await measurePages()
  }

  const random = new Random(1)
  const measurePages = async () => {
    const { overReadBytes } = pageBackup.stats()
    await inParallel(concurrency, pages, async (worker) => {
      const [index, at] = [random.below(concurrency), random.below(segmentBytes / pageBytes)]
      const startMs = performance.now()
      await ofPages.getPage(worker, index, at)
      if (counts) pageRestores.record(performance.now() - startMs)
    })
    counters.overReadBytes += pageBackup.stats().overReadBytes - overReadBytes
    counters.pagesRead += pages
  }

  const measureOnSdkHandler = async () => {
    const way = "backup-s3, SDK's handler"
    const put = (_: number, index: number) => onSdkHandler.put(index)
    keep(way, 'PUT', count, await measure(concurrency, count, segmentBytes, put))
    const get = (worker: number, index: number) => onSdkHandler.get(worker, index)
    keep(way, 'GET', count, await measure(concurrency, count, segmentBytes, get))
    await onSdkHandler.dropAll()
  }

  const measureObjectPerPage = async () => {
    const put = (_: number, at: number) => bare.put(`page/${at}`, segments.sourcePage(0, at))
    keep('one object per page', 'PUT', pages, await measure(concurrency, pages, pageBytes, put))
    const get = async (_: number, at: number) => segments.checkPage(await bare.get(`page/${at}`), 0, at)
    keep('one object per page', 'GET', pages, await measure(concurrency, pages, pageBytes, get))
    await bare.delete(Array.from({ length: pages }, (_, at) => `page/${at}`))
  }

  await inParallel(concurrency, concurrency, (_, index) => ofPages.put(index))
  const inTurn = [measureBare, measureBackup, measureOnSdkHandler, measureObjectPerPage]
  for (let round = 0; round <= rounds; round++) {
    counts = round > 0
    // When the time is up, what is left of the rounds moves less; a small budget has small rounds from the start.
    const share = performance.now() > endMs || (budgetMs ?? tightMs) < tightMs ? 1 / 4 : 1
    smallestRound = Math.min(smallestRound, share)
    count = segmentsPerRound * share
    pages = pagesPerRound * share
    for (const measureWay of round % 2 === 0 ? inTurn : inTurn.toReversed()) await measureWay()
  }
  const { costs } = backup.stats()
  return {
    engine: access.engine,
    concurrency,
    loops: ways.flatMap((way) => verbs.flatMap((verb) => loops.get(`${way} ${verb}`) ?? [])),
    putsPerGiB: costs.putsPerGiB,
    getsPerGiB: (counters.gets / counters.segmentsRead) * (gibibyte / segmentBytes),
    hedges: counters.hedges,
    segmentsRead: counters.segmentsRead,
    overReadBytesPerPage: counters.overReadBytes / counters.pagesRead,
    segmentRestore: segmentRestores.summary(),
    pageRestore: pageRestores.summary(),
    wrongAnswers: segments.wrongAnswers,
    smallestRound,
  }
}

function openBackup(access: S3Access, name: string, usesPageHandler: boolean): Promise<S3Backup> {
  const handler = usesPageHandler ? { requestHandler: pageHttpHandler() } : {}
  const client = new S3Client({ ...access.clientConfig, ...handler })
  const prefix = `${access.prefix}${name}/`
  return S3Backup.open({ client, bucket: access.bucket, prefix, compaction: false })
}
