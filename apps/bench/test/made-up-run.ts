import { type CaseResult, type RunResult, resultVersion } from '../src/results.ts'
import { spreadOf } from '../src/statistics.ts'

const mebibyte = 1024 ** 2

/** A result that looks measured, for tests of what is made of results. */
export function madeUpCase(
  backend: string,
  workload: string,
  rates: readonly number[],
  change: Partial<CaseResult> = {},
): CaseResult {
  const spread = spreadOf(rates)!
  const latency = { count: 100, p50Ms: 1, p90Ms: 2, p99Ms: 3, p999Ms: 4, maxMs: 5 }
  return {
    backend,
    workload,
    peer: backend.startsWith('peer:'),
    pageSizeBytes: 4096,
    limitBytes: 64 * mebibyte,
    dataBytes: 256 * mebibyte,
    bufferBytes: 8 * mebibyte,
    concurrency: 4,
    memoryGroup: false,
    backupBytesPerSecond: spread.median,
    restoreBytesPerSecond: spread.median,
    backupGivingBackBytesPerSecond: spread.median,
    restoreIntoNewBytesPerSecond: spread.median,
    touchedBytesPerSecond: spread.median,
    pageRestoresPerSecondDepth4: 10_000,
    pageRestoresPerSecondDepth32: 20_000,
    spread: { backupBytesPerSecond: spread, restoreBytesPerSecond: spread, touchedBytesPerSecond: spread },
    ceilings: {},
    peakRssBytes: 160 * mebibyte,
    baselineRssBytes: 80 * mebibyte,
    memory: {
      peakSharedBytes: 0,
      samples: [
        { ms: 0, residentBytes: 80 * mebibyte, sharedBytes: 0 },
        { ms: 500, residentBytes: 150 * mebibyte, sharedBytes: 0 },
      ],
      phases: [{ phase: 'load', ms: 100 }],
    },
    seconds: 3,
    rounds: {
      backupBytesPerSecond: rates,
      restoreBytesPerSecond: rates,
      backupGivingBackBytesPerSecond: rates,
      restoreIntoNewBytesPerSecond: rates,
      touchedBytesPerSecond: rates,
      pageRestoresPerSecondDepth4: [10_000],
      pageRestoresPerSecondDepth32: [20_000],
    },
    latencies: {
      touch: latency,
      pageRestoreDepth4: latency,
      pageRestoreDepth32: latency,
      touchCurve: [
        [0.5, 1],
        [1, 5],
      ],
    },
    eventLoopDelayP99Ms: 2,
    eventLoopDelayMaxMs: 6,
    cpuSeconds: 1,
    cpuSecondsPerTouchedGiB: 0.4,
    verifiedBytes: 256 * mebibyte,
    wrongBytes: 0,
    lostPages: 0,
    mismatchedBlocks: 0,
    failedTouches: 0,
    wrongFiles: [],
    errors: [],
    memoryReturn: { ms: 3, share: 1 },
    medium: 'file',
    backendStats: {},
    storeStats: {},
    shortened: {},
    ...change,
  }
}

export function madeUpRun(cases: readonly CaseResult[], ceilings: Record<string, number> = {}): RunResult {
  return {
    resultVersion,
    date: '2026-01-02T03:04:05.000Z',
    nodeVersion: 'v26.0.0',
    commit: 'abcdef123456',
    machine: {
      processor: 'A processor',
      processors: 2,
      memoryBytes: 8 * 1024 ** 3,
      system: 'Linux',
      fileSystem: 'ext4',
      directory: '/var/tmp',
    },
    settings: {
      seed: 1,
      rounds: 3,
      overcommit: 4,
      inputs: [],
      inputFiles: 10,
      inputBytes: 100 * mebibyte,
      io: 'auto',
      checksums: true,
      budgetSeconds: 90,
    },
    ceilings,
    ceilingSpreads: {},
    ceilingNotes: ['fio is not installed <here>'],
    cases,
    failedCases: [],
    seconds: 12,
  }
}
