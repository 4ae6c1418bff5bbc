import type { GoalOutcome } from '../goals.ts'
import { formatMilliseconds, formatRate } from '../sizes.ts'
import { spreadOf } from '../statistics.ts'
import type { LoopFigures, LoopsFindings } from './loops.ts'

/** PUT, or GET, requests that may be made for a GiB of pages: 128 segments and a few retries. */
const mostRequestsPerGiB = 132
const mostOverReadBytes = 64 * 1024

function medianOf(
  loop: LoopFigures | undefined,
  figure: 'bytesPerSecond' | 'cpuMsPer8MiB' | 'cpuMsPerRequest',
) {
  return spreadOf(loop?.[figure] ?? [])?.median ?? Number.NaN
}

function find({ loops }: LoopsFindings, way: LoopFigures['way'], verb: LoopFigures['verb']) {
  return loops.find((loop) => loop.way === way && loop.verb === verb)
}

/** Holds backup-s3 against the loop of bare calls that does the same. */
export function judgeLoops(findings: LoopsFindings): GoalOutcome[] {
  const outcomes: GoalOutcome[] = []
  const add = (what: string, against: string, goal: string, measured: string, met: boolean) =>
    outcomes.push({ subject: 's3', what, against, goal, measured, met })
  for (const verb of ['PUT', 'GET'] as const) {
    const [own, bare] = [find(findings, 'backup-s3', verb), find(findings, 'bare 8 MiB objects', verb)]
    // Both were measured in each round, one after the other: their ratios leave out what else the machine did.
    const ratios = own?.bytesPerSecond.map((rate, round) => rate / bare!.bytesPerSecond[round]) ?? []
    const ratio = spreadOf(ratios)?.median ?? Number.NaN
    add(`${verb} of segments`, 'bare 8 MiB objects', '≥ 1.00 ×', `${ratio.toFixed(2)} ×`, ratio >= 1)
  }
  const cpu =
    medianOf(find(findings, 'backup-s3', 'GET'), 'cpuMsPer8MiB') /
    medianOf(find(findings, 'bare 8 MiB objects', 'GET'), 'cpuMsPer8MiB')
  add('client CPU of a GET', 'bare 8 MiB objects', '≤ 0.75 ×', `${cpu.toFixed(2)} ×`, cpu <= 0.75)
  for (const [verb, requests] of [
    ['PUT', findings.putsPerGiB],
    ['GET', findings.getsPerGiB],
  ] as const) {
    const hedges = verb === 'GET' ? findings.hedgesPerGiB : 0
    const measured = requests.toFixed(1) + (hedges > 0 ? ` (${hedges.toFixed(1)} hedges)` : '')
    add(`${verb} requests per GiB`, '', `≤ ${mostRequestsPerGiB}`, measured, requests <= mostRequestsPerGiB)
  }
  const overRead = findings.overReadBytesPerPage
  add('over-read per random page', '', '< 64 KiB', `${overRead.toFixed(0)} B`, overRead < mostOverReadBytes)
  const restore = findings.segmentRestore
  if (restore !== undefined) {
    const ratio = restore.p99Ms / restore.p50Ms
    add('restore of a segment, p99', 'its median', '≤ 2.00 ×', `${ratio.toFixed(2)} ×`, ratio <= 2)
  }
  return outcomes
}

/** Rows of the table of the loops: way, verb, rate with spread, processor time per 8 MiB and per request. */
export function loopRows({ loops }: LoopsFindings): string[][] {
  return loops.map((loop) => {
    const { min, max } = spreadOf(loop.bytesPerSecond) ?? { min: Number.NaN, max: Number.NaN }
    return [
      `${loop.way}, ${loop.verb}`,
      formatRate(medianOf(loop, 'bytesPerSecond')),
      `${formatRate(min)} – ${formatRate(max)}`,
      formatMilliseconds(medianOf(loop, 'cpuMsPer8MiB')),
      formatMilliseconds(medianOf(loop, 'cpuMsPerRequest')),
    ]
  })
}
