import { describe, expect, it } from 'vitest'
import { judgeGoals } from '../src/goals.ts'
import { renderReport } from '../src/report/page.ts'
import { isClean, type RunResult } from '../src/results.ts'
import { Disturbances, parseDisturbances } from '../src/s3/disturbances.ts'
import type { LoopsFindings } from '../src/s3/loops.ts'
import { type MatrixFindings, measureMatrix } from '../src/s3/matrix.ts'
import { verbs, ways } from '../src/s3/meter.ts'
import { type FaultShares, type S3Server, startS3Server } from '../src/s3/server.ts'
import { renderTables } from '../src/table.ts'
import { madeUpRun } from './made-up-run.ts'

const latency = { count: 100, p50Ms: 20, p90Ms: 25, p99Ms: 30, p999Ms: 40, maxMs: 50 }

const loops: LoopsFindings = {
  engine: 'an <engine>',
  concurrency: 4,
  loops: ways.flatMap((way, index) =>
    verbs.map((verb) => ({
      way,
      verb,
      bytesPerSecond: [1e8, 2e8, 4e8].map((rate) => rate * (index === 1 ? 1.5 : 1)),
      cpuMsPer8MiB: [10, 20, 30].map((ms) => ms * (index === 1 ? 0.5 : 1)),
      cpuMsPerRequest: [10, 20, 30],
    })),
  ),
  putsPerGiB: 128,
  getsPerGiB: 130,
  hedges: 1,
  segmentsRead: 64,
  overReadBytesPerPage: 100,
  segmentRestore: latency,
  pageRestore: latency,
  wrongAnswers: 0,
  smallestRound: 0.25,
}

function rates(ratio: number) {
  return { bytesPerSecond: [1e8, 1e8, 1e8], idealBytesPerSecond: [1e8], ratio: [ratio, ratio, ratio] }
}

const matrix: MatrixFindings = {
  concurrency: 4,
  wrongAnswers: 0,
  cells: [
    { latencyMs: 0, errorShare: 0, put: rates(1), get: rates(1), restore: latency, retries: 0 },
    { latencyMs: 20, errorShare: 0.01, put: rates(0.95), get: rates(0.85), restore: latency, retries: 3 },
  ],
}

describe('figures of S3', () => {
  const run: RunResult = { ...madeUpRun([]), s3: loops, s3Matrix: matrix }
  const find = (what: string) => judgeGoals(run).find((each) => each.what.startsWith(what))

  it('hold backup-s3 against the bare loop of the same round', () => {
    expect(find('PUT of segments')).toMatchObject({ measured: '1.50 ×', met: true })
    expect(find('client CPU of a GET')).toMatchObject({ measured: '0.50 ×', met: true })
    expect(find('restore of a segment, p99')).toMatchObject({ measured: '1.50 ×', met: true })
  })

  it('tell the hedge that is free apart from the requests', () => {
    expect(find('GET requests per GiB')).toMatchObject({ measured: '128.0 and 1 hedge in all', met: true })
    const greedy = judgeGoals({ ...run, s3: { ...loops, getsPerGiB: 140, hedges: 6 } })
    expect(greedy.find(({ what }) => what.startsWith('GET requests'))).toMatchObject({ met: false })
  })

  it('are judged with latency and errors where there are both', () => {
    expect(find('PUT of segments, 20 ms')).toMatchObject({ measured: '0.95 ×', met: true })
    expect(find('GET of segments, 20 ms')).toMatchObject({ measured: '0.85 ×', met: false })
    expect(find('restore, p99, 20 ms')).toMatchObject({ measured: '1.50 ×', met: true })
    expect(find('PUT of segments, 0 ms')).toBeUndefined()
  })

  it('are in the tables and in the page, with what was shortened', () => {
    const [page, tables] = [renderReport(run), renderTables(run)]
    for (const way of ways) expect(tables).toContain(`${way}, PUT`)
    for (const text of ['20 ms, 1 % errors', 'pageHttpHandler()', '25 % of their 16 segments']) {
      expect(page).toContain(text)
      expect(tables).toContain(text)
    }
    expect(page).toContain('an &lt;engine&gt;')
    expect(page).toContain('over-read per random page')
  })

  it('make a run unclean when an answer was wrong', () => {
    const right = { cases: [], failedCases: [] }
    expect(isClean({ ...right, s3: loops, s3Matrix: matrix })).toBe(true)
    expect(isClean({ ...right, s3: { ...loops, wrongAnswers: 1 } })).toBe(false)
    expect(isClean({ ...right, s3: loops, s3Matrix: { ...matrix, wrongAnswers: 1 } })).toBe(false)
  })
})

describe('the matrix', () => {
  it('measures every latency with and without errors, finds every byte right and leaves nothing', async () => {
    await using server = await startS3Server({ kind: 'embedded', latencyMs: 0, errorShare: 0 })
    const { access } = server
    const order = { access, concurrency: 2, rounds: 1, putsPerRound: 2, getsPerRound: 4 }
    const found = await measureMatrix({ task: 'matrix', ...order }, (shares) => server.setFaults!(shares))
    expect(found.wrongAnswers).toBe(0)
    expect(found.cells).toHaveLength(6)
    const slow = found.cells.filter(({ latencyMs }) => latencyMs === 100)
    for (const { restore, get } of slow) {
      expect(restore.count).toBe(4)
      expect(restore.p50Ms).toBeGreaterThanOrEqual(100)
      expect(get.idealBytesPerSecond[0]).toBeLessThan((2 * 8 * 1024 ** 2) / 0.1)
    }
    expect(await server.list()).toEqual([])
  })
})

describe('what disturbs a soak', () => {
  it('is refused where the service cannot be disturbed so', () => {
    expect(parseDisturbances({ backend: 's3', s3: 'ceph', kill: true })).toMatchObject({ kill: true })
    expect(parseDisturbances({ backend: 's3', s3Faults: true })).toMatchObject({ faults: true })
    for (const [given, message] of [
      [{ backend: 's3', s3: 'moon' }, "--s3 'moon'"],
      [{ backend: 's3', kill: true }, '--kill takes'],
      [{ backend: 'file', s3: 'ceph', kill: true }, '--kill takes'],
      [{ backend: 's3', s3: 'ceph', s3Faults: true }, '--s3-faults takes'],
    ] as const) {
      expect(() => parseDisturbances(given)).toThrow(message)
    }
  })

  it('sets faults, and takes them away when it stops', async () => {
    const told: FaultShares[] = []
    const server = { setFaults: async (shares: FaultShares) => void told.push(shares) } as unknown as S3Server
    const options = { kind: 'embedded', kill: false, faults: true } as const
    const disturbances = await Disturbances.start(server, options, 1, () => {})
    expect(Object.values(told[0])).toEqual([0.01, 0.01, 0.005, 0.0005])
    await disturbances.stop()
    expect(told[1]).toEqual({})
  })
})
