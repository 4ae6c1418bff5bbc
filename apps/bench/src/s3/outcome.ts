import type { GoalOutcome } from '../goals.ts'
import { gibibyte } from '../sizes.ts'
import { spreadOf } from '../statistics.ts'
import type { LoopsFindings } from './loops.ts'
import { type MatrixCell, type MatrixFindings, ratesOf } from './matrix.ts'
import { type LoopFigures, segmentBytes, type Verb, type Way } from './meter.ts'

/** PUT, or GET, requests that may be made for a GiB of pages: 128 segments and a few retries. */
const mostRequestsPerGiB = 132
const mostOverReadBytes = 64 * 1024
/** The first hedges of a backup are free; afterwards each has to be earned by requests. */
const freeHedges = 2

type FigureName = 'bytesPerSecond' | 'cpuMsPer8MiB' | 'cpuMsPerRequest'

function medianOf(loop: LoopFigures | undefined, figure: FigureName): number {
  return spreadOf(loop?.[figure] ?? [])?.median ?? Number.NaN
}

function find({ loops }: LoopsFindings, way: Way, verb: Verb): LoopFigures | undefined {
  return loops.find((loop) => loop.way === way && loop.verb === verb)
}

/** Median of the ratios to the bare loop, round by round, which leaves out what else the machine did meanwhile. */
function ratioToBare(findings: LoopsFindings, way: Way, verb: Verb, figure: FigureName): number {
  const [own, bare] = [find(findings, way, verb), find(findings, 'bare 8 MiB objects', verb)]
  const ratios = own?.[figure].map((value, round) => value / (bare?.[figure][round] ?? Number.NaN))
  return spreadOf(ratios ?? [])?.median ?? Number.NaN
}

/** Holds backup-s3 against the loop of bare calls that does the same. */
export function judgeLoops(findings: LoopsFindings): GoalOutcome[] {
  const outcomes: GoalOutcome[] = []
  const add = (what: string, against: string, goal: string, measured: string, met: boolean) =>
    outcomes.push({ subject: 's3', what, against, goal, measured, met })
  for (const verb of ['PUT', 'GET'] as const) {
    const ratio = ratioToBare(findings, 'backup-s3', verb, 'bytesPerSecond')
    add(`${verb} of segments`, 'bare 8 MiB objects', '≥ 1.00 ×', `${ratio.toFixed(2)} ×`, ratio >= 1)
  }
  const cpu = ratioToBare(findings, 'backup-s3', 'GET', 'cpuMsPer8MiB')
  add('client CPU of a GET', 'bare 8 MiB objects', '≤ 0.75 ×', `${cpu.toFixed(2)} ×`, cpu <= 0.75)
  const { putsPerGiB, getsPerGiB, hedges, segmentsRead } = findings
  add(
    'PUT requests per GiB',
    '',
    `≤ ${mostRequestsPerGiB}`,
    putsPerGiB.toFixed(1),
    putsPerGiB <= mostRequestsPerGiB,
  )
  const readGiB = (segmentsRead * segmentBytes) / gibibyte
  const free = Math.min(hedges, freeHedges)
  const earned = getsPerGiB - free / readGiB
  add(
    'GET requests per GiB',
    '',
    `≤ ${mostRequestsPerGiB}`,
    earned.toFixed(1) + (free > 0 ? ` and ${free} hedge${free > 1 ? 's' : ''} in all` : ''),
    earned <= mostRequestsPerGiB,
  )
  const overRead = findings.overReadBytesPerPage
  add('over-read per random page', '', '< 64 KiB', `${overRead.toFixed(0)} B`, overRead < mostOverReadBytes)
  const restore = findings.segmentRestore
  if (restore !== undefined) {
    const ratio = restore.p99Ms / restore.p50Ms
    add('restore of a segment, p99', 'its median', '≤ 2.00 ×', `${ratio.toFixed(2)} ×`, ratio <= 2)
  }
  return outcomes
}

/** Throughput against the ideal, and the slowest restores against the middle one, where there are latency and errors. */
export function judgeMatrix({ cells }: MatrixFindings): GoalOutcome[] {
  return cells
    .filter(({ latencyMs, errorShare }) => latencyMs > 0 && errorShare > 0)
    .flatMap((cell) => {
      const where = `${cellTitle(cell)}`
      const rates = (['PUT', 'GET'] as const).map((verb) => {
        const ratio = spreadOf(ratesOf(cell, verb).ratio)?.median ?? Number.NaN
        return outcome(`${verb} of segments, ${where}`, 'ideal', '≥ 0.90 ×', ratio, ratio >= 0.9)
      })
      const tail = cell.restore.p99Ms / cell.restore.p50Ms
      return [...rates, outcome(`restore, p99, ${where}`, 'its median', '≤ 2.00 ×', tail, tail <= 2)]
    })
}

function outcome(what: string, against: string, goal: string, ratio: number, met: boolean): GoalOutcome {
  return { subject: 's3', what, against, goal, measured: `${ratio.toFixed(2)} ×`, met }
}

export const loopHead = [
  'S3',
  'MB/s',
  'least – most, MB/s',
  'of bare',
  'CPU, ms per 8 MiB',
  'of bare',
  'CPU, ms per request',
]

/** Rows of the table of the loops, the two ratios to the bare loop of the same round included. */
export function loopRows(findings: LoopsFindings): string[][] {
  return findings.loops.map((loop) => {
    const { min, max } = spreadOf(loop.bytesPerSecond) ?? { min: Number.NaN, max: Number.NaN }
    const ratio = (figure: FigureName) => {
      const value = ratioToBare(findings, loop.way, loop.verb, figure)
      return loop.way === 'bare 8 MiB objects' ? '' : `${value < 0.1 ? value.toFixed(3) : value.toFixed(2)} ×`
    }
    return [
      `${loop.way}, ${loop.verb}`,
      megabytes(medianOf(loop, 'bytesPerSecond')),
      `${megabytes(min)} – ${megabytes(max)}`,
      ratio('bytesPerSecond'),
      medianOf(loop, 'cpuMsPer8MiB').toFixed(2),
      ratio('cpuMsPer8MiB'),
      medianOf(loop, 'cpuMsPerRequest').toFixed(3),
    ]
  })
}

export const matrixHead = [
  'S3, latency and errors',
  'PUT, MB/s',
  'of ideal',
  'GET, MB/s',
  'of ideal',
  'restore p50, ms',
  'p99, ms',
  'retries',
]

function cellTitle({ latencyMs, errorShare }: MatrixCell): string {
  return `${latencyMs} ms, ${errorShare * 100} % errors`
}

/** Rows of the table of the matrix: rates, ratios to the ideal, and how long a segment took. */
export function matrixRows({ cells }: MatrixFindings): string[][] {
  return cells.map((cell) => {
    const rates = (['PUT', 'GET'] as const).flatMap((verb) => {
      const { bytesPerSecond, ratio } = ratesOf(cell, verb)
      return [
        megabytes(spreadOf(bytesPerSecond)?.median ?? Number.NaN),
        `${(spreadOf(ratio)?.median ?? Number.NaN).toFixed(2)} ×`,
      ]
    })
    const { p50Ms, p99Ms } = cell.restore
    return [cellTitle(cell), ...rates, p50Ms.toFixed(1), p99Ms.toFixed(1), `${cell.retries}`]
  })
}

function megabytes(bytesPerSecond: number): string {
  return Number.isFinite(bytesPerSecond) ? (bytesPerSecond / 1e6).toFixed(1) : '–'
}

/** What one should know who reads the figures of the loops. */
export function s3Notes({ engine, concurrency, smallestRound }: LoopsFindings): string[] {
  const notes = [
    `S3: ${engine}, ${concurrency} requests at a time; backup-s3 with pageHttpHandler(), bare calls with the SDK's own handler`,
  ]
  if (smallestRound < 1)
    notes.push(
      `S3: rounds moved ${smallestRound * 100} % of their 16 segments and 256 pages, to stay within the budget`,
    )
  return notes
}
