import { workloads } from '../case/workloads.ts'
import { backendMedian, ceilingOf, ceilingTitle, subjectsOf } from '../goals.ts'
import type { CaseResult, RunResult } from '../results.ts'
import type { LoopsFindings } from '../s3/loops.ts'
import { type Spread, spreadOf } from '../statistics.ts'
import { type Bar, barChart } from './bar-chart.ts'
import { type Colours, noSubject } from './colours.ts'

const gigabyte = 1e9

/** A run, and what the page calls it. */
export interface LabelledRun {
  readonly label: string
  readonly run: RunResult
}

function scaled({ median, min, max }: Spread): Pick<Bar, 'value' | 'least' | 'most'> {
  return { value: median / gigabyte, least: min / gigabyte, most: max / gigabyte }
}

/** Whole buffers, each way, with the ceiling of the same run as a mark on every bar. */
export function wholeBufferChart(run: RunResult, colours: Colours): string | undefined {
  const bars = subjectsOf(run).flatMap((backend) =>
    (['backup', 'restore'] as const).flatMap((direction): Bar[] => {
      const figure = `${direction}BytesPerSecond` as const
      const median = backendMedian(run, backend, figure)
      if (median === undefined) return []
      const cases = run.cases.filter((each) => each.backend === backend)
      const spread = spreadOf(cases.flatMap((each) => each.rounds[figure]))!
      const ceiling = ceilingOf(run, backend, direction)
      const title = ceiling && ceilingTitle(ceiling.name)
      return [
        {
          name: `${backend} · ${direction}`,
          ...scaled(spread),
          colour: colours.of(backend),
          limit: ceiling && { value: ceiling.bytesPerSecond / gigabyte, title: title! },
          remark: ceiling && `${Math.round((median / ceiling.bytesPerSecond) * 100)} % of ${title}`,
        },
      ]
    }),
  )
  return barChart('Whole buffers backed up and restored', 'GB/s', bars)
}

/** What each workload touched per second, peers included: a chart for each, so that slow ones are not dwarfed by quick ones. */
export function workloadCharts(run: RunResult, colours: Colours): { workload: string; chart: string }[] {
  return workloads.flatMap(({ name }) => {
    const bars = run.cases.flatMap((each): Bar[] => {
      const spread = each.workload === name ? each.spread.touchedBytesPerSecond : undefined
      return spread === undefined
        ? []
        : [{ name: each.backend, ...scaled(spread), colour: colours.of(each.backend) }]
    })
    const chart = barChart(`Bytes touched by the workload ${name}`, 'GB/s', bars, { digits: digitsFor(bars) })
    return chart === undefined ? [] : [{ workload: name, chart }]
  })
}

/** As many digits as tell the smallest of the values apart from nothing. */
function digitsFor(bars: readonly Bar[]): number {
  return bars.some(({ value }) => value < 0.1) ? 3 : 2
}

/** One figure of several runs, the same case of all runs one below the other. */
export function comparisonChart(
  runs: readonly LabelledRun[],
  what: 'touched' | 'backup' | 'restore',
  colours: Colours,
): string | undefined {
  const name = `${what}BytesPerSecond` as const
  const subjectOf = (each: CaseResult) => `${each.backend} · ${each.workload}`
  const subjects = new Set(runs.flatMap(({ run }) => run.cases.map(subjectOf)))
  const bars = [...subjects].flatMap((subject) =>
    runs.flatMap(({ label, run }) =>
      run.cases.flatMap((each): Bar[] => {
        const spread = each.spread[name]
        if (spread === undefined || subjectOf(each) !== subject) return []
        return [{ name: `${subject} (${label})`, ...scaled(spread), colour: colours.of(each.backend) }]
      }),
    ),
  )
  return barChart(`${what}, all runs`, 'GB/s', bars, { digits: digitsFor(bars) })
}

/** Every ceiling in bytes per second. */
export function ceilingChart(run: RunResult): string | undefined {
  const bars = Object.entries(run.ceilings)
    .filter(([name]) => !name.startsWith('fioRandom') && !name.startsWith('fioBest'))
    .map(([name, value]): Bar => {
      const spread = run.ceilingSpreads[name] ?? { median: value, min: value, max: value }
      return { name: ceilingTitle(name), ...scaled(spread), colour: noSubject }
    })
  return barChart('Ceilings of this machine', 'GB/s', bars)
}

/** What each way to move bytes to and from the S3 service reached. */
export function s3Chart({ loops }: LoopsFindings, colours: Colours): string | undefined {
  const bars = loops.flatMap(({ way, verb, bytesPerSecond }): Bar[] => {
    const spread = spreadOf(bytesPerSecond)
    if (spread === undefined) return []
    const colour = way.startsWith('backup-s3') ? colours.of('s3') : noSubject
    return [{ name: `${way} · ${verb}`, ...scaled(spread), colour }]
  })
  return barChart('S3 beside bare calls', 'GB/s', bars, { digits: digitsFor(bars) })
}
