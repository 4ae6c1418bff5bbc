import { workloads } from '../case/workloads.ts'
import { allowedExtraBytes, subjectsOf } from '../goals.ts'
import type { CaseResult, RunResult } from '../results.ts'
import { mebibyte } from '../sizes.ts'
import type { Colours } from './colours.ts'
import { lineChart } from './line-chart.ts'
import { niceTicks, powerTicks } from './scales.ts'

/** How the workloads of one backend are told apart, in the order of the workloads: solid, dashed, dotted and so on. */
const dashes: readonly (string | undefined)[] = [undefined, '7 4', '2 3', '10 3 2 3', '14 4', '4 8']
const memoryTooltips = 60
const dash = (workload: string) =>
  dashes[
    Math.max(
      0,
      workloads.findIndex(({ name }) => name === workload),
    ) % dashes.length
  ]

/** Resident memory above the empty process over time: a chart for each backend, a line for each workload, all on the same scales. */
export function memoryCharts(run: RunResult, colours: Colours): { backend: string; chart: string }[] {
  const drawn = run.cases.filter((each) => each.memory.samples.length > 0)
  if (drawn.length === 0) return []
  const limit = drawn[0].limitBytes / mebibyte
  const highest = Math.max(
    ...drawn.flatMap((each) => each.memory.samples.map((sample) => mebibytesOf(each, sample))),
  )
  const y = {
    title: 'MiB above the empty process',
    ticks: niceTicks(Math.max(limit + allowedExtraBytes / mebibyte, highest)),
  }
  const x = {
    title: 'seconds since the process began',
    ticks: niceTicks(Math.max(...drawn.map((each) => each.memory.samples.at(-1)!.ms / 1000))),
  }
  return subjectsOf(run).flatMap((backend) => {
    const cases = drawn.filter((each) => each.backend === backend)
    if (cases.length === 0) return []
    const peaks = cases.map((each) => {
      const peak = Math.max(...each.memory.samples.map((sample) => mebibytesOf(each, sample)))
      return `${each.workload} at most ${peak.toFixed(1)} MiB`
    })
    const chart = lineChart({
      title: `Memory of ${backend} over time, limit ${limit} MiB: ${peaks.join(', ')}`,
      x,
      y,
      lines: cases.map((each) => ({
        name: each.workload,
        colour: colours.of(backend),
        dash: dash(each.workload),
        points: each.memory.samples.map((sample) => [sample.ms / 1000, mebibytesOf(each, sample)] as const),
      })),
      limits: [
        { name: `limit ${limit}`, y: limit },
        { name: 'limit + 32', y: limit + allowedExtraBytes / mebibyte },
      ],
      tooltips: memoryTips(cases, x.ticks.at(-1)!),
    })
    return [{ backend, chart }]
  })
}

function mebibytesOf(each: CaseResult, sample: { readonly residentBytes: number }): number {
  return Math.max(0, Math.round(((sample.residentBytes - each.baselineRssBytes) / mebibyte) * 10) / 10)
}

function memoryTips(cases: readonly CaseResult[], seconds: number): { x: number; text: string }[] {
  return Array.from({ length: memoryTooltips }, (_, index) => {
    const x = ((index + 0.5) * seconds) / memoryTooltips
    const values = cases.flatMap((each) => {
      const sample = each.memory.samples.findLast(({ ms }) => ms <= x * 1000)
      const ended = x * 1000 > each.memory.samples.at(-1)!.ms
      return sample === undefined || ended
        ? []
        : [`${each.workload} ${mebibytesOf(each, sample).toFixed(1)} MiB`]
    })
    return { x, text: [`${x.toFixed(1)} s`, ...values].join('\n') }
  })
}

/** How long a touch waited for its memory, the share of touches that had it after so long: a chart for each workload, on the same scales. */
export function latencyCharts(run: RunResult, colours: Colours): { workload: string; chart: string }[] {
  const drawn = run.cases.filter((each) => each.latencies.touchCurve.length > 0)
  if (drawn.length === 0) return []
  const shares = drawn[0].latencies.touchCurve.map(([share]) => share)
  const shown = (ms: number) => Math.max(ms, 0.001)
  const x = {
    title: 'share of touches served within this time, %',
    ticks: shares.map((_, index) => index),
    // Each second one, or they would run into each other.
    labels: shares.map((share, index) => (index % 2 === 0 ? `${+(share * 100).toFixed(1)}` : '')),
  }
  const y = {
    title: 'milliseconds (logarithmic)',
    ticks: powerTicks(drawn.flatMap((each) => each.latencies.touchCurve.map(([, ms]) => shown(ms)))),
    logarithmic: true,
  }
  return workloads.flatMap(({ name }) => {
    const cases = drawn.filter((each) => each.workload === name)
    if (cases.length === 0) return []
    const medians = cases.map(
      (each) =>
        `${each.backend} ${each.latencies.touch?.p50Ms.toFixed(3)} and ${each.latencies.touch?.p99Ms.toFixed(3)} ms`,
    )
    const chart = lineChart({
      title: `Waits of the workload ${name}, median and 99 %: ${medians.join(', ')}`,
      x,
      y,
      lines: cases.map((each) => ({
        name: each.backend.replace(/^peer:/, ''),
        colour: colours.of(each.backend),
        points: each.latencies.touchCurve.map(([, ms], index) => [index, shown(ms)] as const),
      })),
      tooltips: shares.map((share, index) => ({
        x: index,
        text: [
          `${+(share * 100).toFixed(1)} % of touches within`,
          ...cases.map((each) => `${each.backend} ${each.latencies.touchCurve[index][1].toFixed(3)} ms`),
        ].join('\n'),
      })),
    })
    return [{ workload: name, chart }]
  })
}
