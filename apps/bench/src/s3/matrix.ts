import { S3Client } from '@aws-sdk/client-s3'
import { pageHttpHandler, S3Backup } from '@spillway/backup-s3'
import { LatencyHistogram, type LatencySummary } from '../statistics.ts'
import { measure, segmentBytes, type Verb } from './meter.ts'
import type { FaultShares, S3Access } from './server.ts'
import { SegmentBackup, Segments } from './stores.ts'

/** What the process of the matrix is told to do. */
export interface MatrixOrder {
  readonly task: 'matrix'
  readonly access: S3Access
  readonly concurrency: number
  readonly rounds: number
  /** Segments that each cell moves in a round. */
  readonly putsPerRound: number
  readonly getsPerRound: number
}

/** Enough GETs for a 99th percentile, in about a minute. */
export const matrixSize = { rounds: 4, putsPerRound: 24, getsPerRound: 96 } as const

/** Segments of 8 MiB moved one way with one added latency and one share of errors; one entry for each round. */
export interface MatrixRates {
  readonly bytesPerSecond: number[]
  /** What the concurrency allows: see `docs/benchmark.md`. */
  readonly idealBytesPerSecond: number[]
  readonly ratio: number[]
}

export interface MatrixCell {
  readonly latencyMs: number
  readonly errorShare: number
  readonly put: MatrixRates
  readonly get: MatrixRates
  /** From asking for a segment to having all of it. */
  readonly restore: LatencySummary
  /** Requests that were made again, PUT and GET. */
  readonly retries: number
}

export interface MatrixFindings {
  readonly concurrency: number
  readonly cells: readonly MatrixCell[]
  readonly wrongAnswers: number
}

export const latenciesMs = [0, 20, 100]
export const errorShares = [0, 0.01]

/**
 * Moves segments at every added latency and with every share of 503 answers, in turn in every round, every second round
 * backwards. Each round measures without either what one request takes at this concurrency; from that comes the ideal of
 * the others.
 */
export async function measureMatrix(
  { access, concurrency, rounds, putsPerRound, getsPerRound }: MatrixOrder,
  setFaults: (shares: FaultShares) => Promise<void>,
): Promise<MatrixFindings> {
  const segments = new Segments(concurrency)
  const client = new S3Client({ ...access.clientConfig, requestHandler: pageHttpHandler() })
  const prefix = `${access.prefix}matrix/`
  await setFaults({})
  await using backup = await S3Backup.open({ client, bucket: access.bucket, prefix, compaction: false })
  const store = new SegmentBackup(backup, segments)
  const cells = latenciesMs.flatMap((latencyMs) =>
    errorShares.map((errorShare) => ({
      latencyMs,
      errorShare,
      put: { bytesPerSecond: [], idealBytesPerSecond: [], ratio: [] } as MatrixRates,
      get: { bytesPerSecond: [], idealBytesPerSecond: [], ratio: [] } as MatrixRates,
      restores: new LatencyHistogram(),
      retries: 0,
    })),
  )
  const [plain] = cells

  for (let round = 0; round <= rounds; round++) {
    const warmsUp = round === 0
    // Handles of the index-th segment are kept, so each GET asks for another one.
    for (const cell of round % 2 === 0 ? cells.toReversed() : cells) {
      if (warmsUp && cell !== plain) continue
      const { latencyMs, errorShare } = cell
      await setFaults({ latencyMs, slowDown: errorShare })
      const retriesBefore = backup.stats().retries
      const put = await measure(concurrency, putsPerRound, segmentBytes, (_, index) => store.put(index))
      const get = await measure(concurrency, getsPerRound, segmentBytes, async (worker, index) => {
        const startMs = performance.now()
        await store.get(worker, index % putsPerRound)
        if (!warmsUp) cell.restores.record(performance.now() - startMs)
      })
      await store.dropAll()
      if (warmsUp) continue
      cell.put.bytesPerSecond.push(put.bytesPerSecond)
      cell.get.bytesPerSecond.push(get.bytesPerSecond)
      cell.retries += backup.stats().retries - retriesBefore
    }
  }
  await setFaults({})
  for (const { latencyMs, put, get } of cells) {
    addIdeals(put, plain.put, latencyMs, concurrency)
    addIdeals(get, plain.get, latencyMs, concurrency)
  }
  return {
    concurrency,
    cells: cells.map(({ restores, ...cell }) => ({ ...cell, restore: restores.summary()! })),
    wrongAnswers: segments.wrongAnswers,
  }
}

/**
 * Without latency, `concurrency` requests at a time took `concurrency * segmentBytes / rate` each. Latency is added to that, and
 * nothing else should be.
 */
function addIdeals(rates: MatrixRates, plain: MatrixRates, latencyMs: number, concurrency: number): void {
  for (const [round, bytesPerSecond] of rates.bytesPerSecond.entries()) {
    const inFlightBytes = concurrency * segmentBytes
    const serviceSeconds = inFlightBytes / plain.bytesPerSecond[round]
    const ideal = inFlightBytes / (latencyMs / 1000 + serviceSeconds)
    rates.idealBytesPerSecond.push(ideal)
    rates.ratio.push(bytesPerSecond / ideal)
  }
}

export function ratesOf(cell: MatrixCell, verb: Verb): MatrixRates {
  return verb === 'PUT' ? cell.put : cell.get
}
