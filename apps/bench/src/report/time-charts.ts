import { allowedExtraBytes, subjectsOf } from '../goals.ts'
import type { CaseResult, RunResult } from '../results.ts'
import { mebibyte } from '../sizes.ts'
import { colourOf, drawChart, gridColour, legend, nameAxis, niceAbove, soft, valueAxis } from './chart.ts'

const dashes: readonly ('solid' | 'dashed' | 'dotted')[] = ['solid', 'dashed', 'dotted']

/** Resident memory above the empty process over time, one line per workload, with the limit. */
export function memoryChart(run: RunResult, backend: string): string | undefined {
  const cases = run.cases.filter((each) => each.backend === backend && each.memory.samples.length > 0)
  if (cases.length === 0) return undefined
  const limit = cases[0].limitBytes / mebibyte
  const highest = Math.max(...cases.map((each) => (each.peakRssBytes - each.baselineRssBytes) / mebibyte))
  return drawChart(
    {
      legend: legend(cases.map((each) => each.workload)),
      grid: { left: 70, right: 24, top: 40, bottom: 48 },
      xAxis: { ...valueAxis('seconds since the process began'), nameGap: 28, min: 0 },
      yAxis: {
        ...valueAxis('MiB above the empty process'),
        nameGap: 48,
        min: 0,
        max: niceAbove(Math.max(limit + allowedExtraBytes / mebibyte, highest) * 1.08),
      },
      series: cases.map((each, index) => ({
        name: each.workload,
        type: 'line',
        showSymbol: false,
        lineStyle: { width: 1.8, color: colourOf(index) },
        itemStyle: { color: colourOf(index) },
        data: each.memory.samples.map((sample) => [
          sample.ms / 1000,
          Math.max(0, Math.round(((sample.residentBytes - each.baselineRssBytes) / mebibyte) * 10) / 10),
        ]),
        ...(index === 0 ? { markLine: limitLines(limit) } : {}),
      })),
    } as Parameters<typeof drawChart>[0],
    520,
    300,
  )
}

function limitLines(limit: number) {
  const line = (name: string, yAxis: number, colour: string, position: string) => ({
    name,
    yAxis,
    lineStyle: { color: colour, type: 'solid', width: 1.5 },
    label: { formatter: name, position, color: colour, fontSize: 12 },
  })
  return {
    silent: true,
    symbol: 'none',
    data: [
      line(`limit ${limit} MiB`, limit, 'var(--bad)', 'insideStartBottom'),
      line('limit + 32 MiB', limit + allowedExtraBytes / mebibyte, 'var(--soft)', 'insideStartTop'),
    ],
  }
}

/** How long a touch waited for its memory: the share of touches that had it after so many milliseconds. */
export function latencyChart(run: RunResult): string | undefined {
  const cases = run.cases.filter((each) => each.latencies.touchCurve.length > 0)
  if (cases.length === 0) return undefined
  const subjects = subjectsOf(run)
  const shares = cases[0].latencies.touchCurve.map(([share]) => `${+(share * 100).toFixed(1)} %`)
  const title = (each: CaseResult) => `${each.backend} ${each.workload}`
  const dashOf = (each: CaseResult) =>
    dashes[Math.max(0, ['sweep', 'random', 'zipf'].indexOf(each.workload)) % dashes.length]
  return drawChart(
    {
      legend: { ...legend(cases.map(title)), width: 900 },
      grid: { left: 90, right: 30, top: 36 + Math.ceil(cases.length / 6) * 24, bottom: 56 },
      xAxis: {
        ...nameAxis(shares),
        name: 'share of touches that had their memory within this time',
        nameLocation: 'middle',
        nameGap: 32,
        nameTextStyle: { color: soft, fontSize: 13 },
        boundaryGap: false,
        splitLine: { show: true, lineStyle: { color: gridColour } },
        axisLabel: { color: soft, fontSize: 12, interval: 0 },
      },
      yAxis: {
        ...valueAxis('milliseconds (logarithmic)'),
        type: 'log',
        nameGap: 62,
        axisLabel: { color: soft, fontSize: 12, formatter: (value: number) => `${+value.toPrecision(1)}` },
      },
      series: cases.map((each) => ({
        name: title(each),
        type: 'line',
        symbolSize: 5,
        lineStyle: { width: 2, type: dashOf(each), color: colourOf(subjects.indexOf(each.backend)) },
        itemStyle: { color: colourOf(subjects.indexOf(each.backend)) },
        data: each.latencies.touchCurve.map(([, ms]) => Math.max(ms, 0.001)),
      })),
    } as Parameters<typeof drawChart>[0],
    1000,
    400,
  )
}
