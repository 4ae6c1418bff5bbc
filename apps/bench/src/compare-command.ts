import { styleText } from 'node:util'
import { type CaseResult, type RunResult, readRunResult } from './results.ts'
import { formatRate } from './sizes.ts'
import type { Spread } from './statistics.ts'
import { textTable } from './text-table.ts'
import { UsageError } from './usage-error.ts'

/** A figure of both runs. */
export interface ComparedFigure {
  readonly subject: string
  readonly figure: string
  readonly before: Spread
  readonly after: Spread
  /** How much better the second run is: 1.1 is 10 % faster. */
  readonly ratio: number
  /** Worse by more than the threshold, with rounds that do not overlap. */
  readonly regressed: boolean
}

const rateFigures = [
  ['touchedBytesPerSecond', 'touched'],
  ['backupBytesPerSecond', 'backup'],
  ['restoreBytesPerSecond', 'restore'],
  ['pageRestoresPerSecondDepth4', 'pages, 4 deep'],
  ['pageRestoresPerSecondDepth32', 'pages, 32 deep'],
] as const

/** Compares what both runs measured: the same backend, workload, page size, limit and amount of data. */
export function compareRuns(before: RunResult, after: RunResult, threshold: number): ComparedFigure[] {
  const figures: ComparedFigure[] = []
  for (const old of before.cases) {
    const now = after.cases.find((each) => caseKey(each) === caseKey(old))
    if (now === undefined) continue
    for (const [name, figure] of rateFigures) {
      const [first, second] = [old.spread[name], now.spread[name]]
      if (first === undefined || second === undefined) continue
      const ratio = second.median / first.median
      figures.push({
        subject: `${old.backend} · ${old.workload}`,
        figure,
        before: first,
        after: second,
        ratio,
        // Rounds that overlap are noise, whatever their medians say.
        regressed: ratio < 1 - threshold && second.max < first.min,
      })
    }
  }
  return figures
}

function caseKey(each: CaseResult): string {
  return JSON.stringify([each.backend, each.workload, each.pageSizeBytes, each.limitBytes, each.dataBytes])
}

/** The command `compare`. Returns the exit status: 1 when something became slower than the threshold allows. */
export function compareCommand(beforePath: string, afterPath: string, thresholdText: string): number {
  const threshold = parseThreshold(thresholdText)
  const before = readRunResult(beforePath)
  const after = readRunResult(afterPath)
  const figures = compareRuns(before, after, threshold)
  if (figures.length === 0) {
    throw new UsageError(
      `'${beforePath}' and '${afterPath}' have no case in common; measure the same backends and workloads with the same limit`,
    )
  }
  console.log(`${heading(before)}\n${heading(after)}`)
  const rows = figures.map((each) => [
    each.subject,
    each.figure,
    cell(each.figure, each.before),
    cell(each.figure, each.after),
    colour(each, `${each.ratio.toFixed(2)} ×`),
  ])
  console.log(
    textTable(['case', 'figure', 'first (least – most)', 'second (least – most)', 'second / first'], rows, 2),
  )
  console.log(ceilingDrift(before, after))
  const regressed = figures.filter((each) => each.regressed)
  const limit = `more than ${Math.round(threshold * 100)} % slower in every round`
  console.log(
    regressed.length === 0
      ? `nothing became ${limit}`
      : `${regressed.length} of ${figures.length} figures became ${limit}`,
  )
  return regressed.length === 0 ? 0 : 1
}

function parseThreshold(text: string): number {
  const percent = Number(text.replace(/\s*%$/, ''))
  if (text.trim() !== '' && percent >= 0 && percent < 100) return percent / 100
  throw new UsageError(`--threshold '${text}' is not a percentage from 0 to 99; write for example 10`)
}

function heading(run: RunResult): string {
  return `${run.date}  commit ${run.commit}  Node ${run.nodeVersion}  ${run.machine.processor} × ${run.machine.processors}`
}

/** The ceilings of both runs: when they differ, so did the machine. */
function ceilingDrift(before: RunResult, after: RunResult): string {
  const moved = Object.keys(before.ceilings).flatMap((name) => {
    const ratio = after.ceilings[name] / before.ceilings[name]
    return Number.isFinite(ratio) && Math.abs(ratio - 1) > 0.15 ? [`${name} ${ratio.toFixed(2)} ×`] : []
  })
  if (moved.length === 0) return 'the ceilings of both runs agree within 15 %'
  return `the machine itself differs, second / first: ${moved.join(', ')}`
}

function cell(figure: string, spread: Spread): string {
  const format = figure.startsWith('pages') ? (rate: number) => `${(rate / 1000).toFixed(1)} k/s` : formatRate
  return `${format(spread.median)} (${format(spread.min)} – ${format(spread.max)})`
}

function colour(each: ComparedFigure, text: string): string {
  if (each.regressed) return styleText('red', text)
  return each.ratio > 1.05 ? styleText('green', text) : text
}
