import { subjectsOf } from '../goals.ts'
import type { CaseResult, RunResult } from '../results.ts'

/** A figure that backends and peers are compared by. */
export interface PeerFigure {
  /** With its unit. */
  readonly title: string
  readonly digits: number
  value(run: RunResult, subject: string): number | undefined
}

function caseOf(run: RunResult, subject: string, workload: string): CaseResult | undefined {
  return run.cases.find((each) => each.backend === subject && each.workload === workload)
}

function rate(workload: string, title: string, unit: 'GB/s' | 'thousand/s'): PeerFigure {
  return {
    title: `${title}, ${unit}`,
    digits: unit === 'GB/s' ? 2 : 1,
    value(run, subject) {
      const found = caseOf(run, subject, workload)
      if (found?.touchedBytesPerSecond == null) return undefined
      return found.touchedBytesPerSecond / (unit === 'GB/s' ? 1e9 : 1000 * found.pageSizeBytes)
    },
  }
}

function loopDelay(workload: string): PeerFigure {
  return {
    title: 'loop p99, ms',
    digits: 1,
    value: (run, subject) => caseOf(run, subject, workload)?.eventLoopDelayP99Ms,
  }
}

const compared = [
  ['random', 'whole buffers', 'GB/s'],
  ['zipf', '64 KiB ranges', 'GB/s'],
  ['pages-1', 'pages, 1 deep', 'thousand/s'],
  ['pages-4', 'pages, 4 deep', 'thousand/s'],
  ['pages-32', 'pages, 32 deep', 'thousand/s'],
] as const

/** The figures of the workloads that a run with peers has measured: how much, and the event-loop delay meanwhile. */
export function peerFigures(run: RunResult): PeerFigure[] {
  return compared
    .filter(([workload]) => run.cases.some((each) => each.workload === workload))
    .flatMap(([workload, title, unit]) => [rate(workload, title, unit), loopDelay(workload)])
}

/** Backends and peers of a run that compared them; none where it did not. */
export function comparedSubjects(run: RunResult): string[] {
  return run.missingPeers === undefined ? [] : subjectsOf(run)
}

export function missingPeerNotes({ missingPeers = [] }: RunResult): string[] {
  return missingPeers.map(({ name, reason }) => `peer ${name} was not measured: ${reason}`)
}
