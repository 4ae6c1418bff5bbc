import { backendMedian, ceilingOf, ceilingTitle, subjectsOf } from '../goals.ts'
import type { RunResult } from '../results.ts'
import type { LoopsFindings } from '../s3/loops.ts'
import { formatRate } from '../sizes.ts'
import { spreadOf } from '../statistics.ts'
import { colourOf, drawChart, ink, legend, markColour, nameAxis, niceAbove, valueAxis } from './chart.ts'

const widthPixels = 1000
const rowPixels = 34

/** `12.3` for a rate, in the unit of the axes. */
function gigabytes(bytesPerSecond: number): number {
  return Math.round(bytesPerSecond / 1e7) / 100
}

interface Bar {
  readonly name: string
  readonly value: number
  readonly least: number
  readonly most: number
  readonly colour: string
  readonly limit?: number
  readonly label: string
}

/** Whole buffers, each way, with the ceiling of the same run as a mark on every bar. */
export function wholeBufferChart(run: RunResult): string | undefined {
  const bars: Bar[] = []
  for (const [index, backend] of subjectsOf(run).entries()) {
    for (const direction of ['backup', 'restore'] as const) {
      const figure = `${direction}BytesPerSecond` as const
      const median = backendMedian(run, backend, figure)
      if (median === undefined) continue
      const rounds = run.cases
        .filter((each) => each.backend === backend)
        .flatMap((each) => each.rounds[figure])
      const spread = spreadOf(rounds)!
      const ceiling = ceilingOf(run, backend, direction)
      const share =
        ceiling === undefined
          ? ''
          : `  ${Math.round((median / ceiling.bytesPerSecond) * 100)} % of ${ceilingTitle(ceiling.name)}`
      bars.push({
        name: `${backend}  ${direction}`,
        value: median,
        least: spread.min,
        most: spread.max,
        colour: colourOf(index),
        label: `${gigabytes(median).toFixed(2)}${share}`,
        ...(ceiling === undefined ? {} : { limit: ceiling.bytesPerSecond }),
      })
    }
  }
  return bars.length === 0 ? undefined : barChart(bars, 'GB/s')
}

/** What the workloads touched per second, peers included. */
export function workloadChart(run: RunResult): string | undefined {
  const subjects = subjectsOf(run)
  const bars = run.cases.flatMap((each): Bar[] => {
    const spread = each.spread.touchedBytesPerSecond
    if (spread === undefined) return []
    return [
      {
        name: `${each.backend}  ${each.workload}`,
        value: spread.median,
        least: spread.min,
        most: spread.max,
        colour: colourOf(subjects.indexOf(each.backend)),
        label: gigabytes(spread.median).toFixed(2),
      },
    ]
  })
  return bars.length === 0 ? undefined : barChart(bars, 'GB/s touched')
}

/** One figure of several runs, each case of all runs beside each other; a run has one colour. */
export function comparisonChart(
  runs: readonly { readonly label: string; readonly run: RunResult }[],
  what: 'touched' | 'backup' | 'restore',
): string | undefined {
  const name = `${what}BytesPerSecond` as const
  const bars = runs.flatMap(({ label, run }, index) =>
    run.cases.flatMap((each): (Bar & { readonly subject: string })[] => {
      const spread = each.spread[name]
      if (spread === undefined) return []
      const subject = `${each.backend}  ${each.workload}`
      const { median, min, max } = spread
      const bar = { name: `${subject}  (${label})`, value: median, least: min, most: max }
      return [{ ...bar, subject, colour: colourOf(index), label: gigabytes(median).toFixed(2) }]
    }),
  )
  const subjects = [...new Set(bars.map(({ subject }) => subject))]
  const sorted = subjects.flatMap((subject) => bars.filter((bar) => bar.subject === subject))
  return sorted.length === 0 ? undefined : barChart(sorted, 'GB/s')
}

/** Every ceiling in bytes per second. */
export function ceilingChart(run: RunResult): string | undefined {
  const bars = Object.entries(run.ceilings)
    .filter(([name]) => !name.startsWith('fioRandom') && !name.startsWith('fioBest'))
    .map(([name, value]): Bar => {
      const spread = run.ceilingSpreads[name]
      return {
        name: ceilingTitle(name),
        value,
        least: spread?.min ?? value,
        most: spread?.max ?? value,
        colour: colourOf(5),
        label: gigabytes(value).toFixed(2),
      }
    })
  return bars.length === 0 ? undefined : barChart(bars, 'GB/s')
}

/** What each way to move bytes to and from the S3 service reached. */
export function s3Chart({ loops }: LoopsFindings): string | undefined {
  const names = [...new Set(loops.map(({ way }) => way))]
  const bars = loops.flatMap(({ way, verb, bytesPerSecond }): Bar[] => {
    const spread = spreadOf(bytesPerSecond)
    if (spread === undefined) return []
    return [
      {
        name: `${way}  ${verb}`,
        value: spread.median,
        least: spread.min,
        most: spread.max,
        colour: colourOf(names.indexOf(way)),
        label: formatRate(spread.median),
      },
    ]
  })
  return bars.length === 0 ? undefined : barChart(bars, 'GB/s')
}

/** Lying bars with a whisker from the least to the greatest round, the figure behind it, and a mark for the limit. */
function barChart(bars: readonly Bar[], unit: string): string {
  const hasLimit = bars.some((bar) => bar.limit !== undefined)
  const longestName = Math.max(...bars.map((bar) => bar.name.length))
  const greatest = Math.max(...bars.map((bar) => Math.max(bar.most, bar.limit ?? 0)))
  const names = ['median', 'least – most round', ...(hasLimit ? ['physical limit, same run'] : [])]
  return drawChart(
    {
      legend: legend(names),
      grid: { left: 24 + longestName * 7.4, right: 24, top: 40, bottom: 48 },
      xAxis: { ...valueAxis(unit), nameGap: 28, min: 0, max: niceAbove(gigabytes(greatest) * 1.25) },
      yAxis: { ...nameAxis(bars.map((bar) => bar.name)), inverse: true },
      series: [
        {
          name: 'median',
          type: 'bar',
          barWidth: 18,
          itemStyle: { color: markColour, opacity: 0.55 },
          data: bars.map((bar) => ({
            value: gigabytes(bar.value),
            itemStyle: { color: bar.colour, opacity: 0.85, borderRadius: [0, 3, 3, 0] },
          })),
        },
        {
          name: 'least – most round',
          type: 'custom',
          itemStyle: { color: markColour },
          renderItem: (_parameters: unknown, api: CustomApi) => whisker(api),
          encode: { x: [1, 2], y: 0 },
          data: bars.map((bar, index) => [index, gigabytes(bar.least), gigabytes(bar.most)]),
          z: 5,
        },
        {
          // The label stands behind the farthest of bar, whisker and mark, so that nothing overlaps.
          type: 'scatter',
          symbolSize: 0.01,
          silent: true,
          label: {
            show: true,
            position: 'right',
            distance: 10,
            color: ink,
            fontSize: 12.5,
            formatter: (item: { dataIndex: number }) => bars[item.dataIndex].label,
          },
          data: bars.map((bar, index) => [gigabytes(Math.max(bar.most, bar.limit ?? 0)), index]),
        },
        ...(hasLimit
          ? [
              {
                name: 'physical limit, same run',
                type: 'scatter',
                symbol: 'rect',
                symbolSize: [3, 28],
                itemStyle: { color: 'var(--bad)' },
                data: bars.flatMap((bar, index) =>
                  bar.limit === undefined ? [] : [[gigabytes(bar.limit), index]],
                ),
                z: 6,
              },
            ]
          : []),
      ],
    } as Parameters<typeof drawChart>[0],
    widthPixels,
    96 + bars.length * rowPixels,
  )
}

interface CustomApi {
  value(dimension: number): number
  coord(point: readonly [number, number]): [number, number]
}

function whisker(api: CustomApi) {
  const [left, y] = api.coord([api.value(1), api.value(0)])
  const [right] = api.coord([api.value(2), api.value(0)])
  const line = (x1: number, y1: number, x2: number, y2: number) => ({
    type: 'line',
    shape: { x1, y1, x2, y2 },
    style: { stroke: markColour, lineWidth: 1.5 },
  })
  return {
    type: 'group',
    children: [line(left, y, right, y), line(left, y - 5, left, y + 5), line(right, y - 5, right, y + 5)],
  }
}
