import { assertKnownOptions } from '@spillway/core'
import { livePools, type Pool } from '@spillway/pool'
import { boundsSeconds, type CallDurations, callKinds, type DurationHistogram } from './call-durations.ts'
import { type Metric, type Reading, readingsOf } from './readings.ts'

export interface MetricsOptions {
  /** Which pools. Default: all of this thread that are open. */
  readonly pools?: readonly Pool[] | undefined
  /** Histograms of how long calls took. Default: none. */
  readonly durations?: CallDurations | undefined
}

/** The type that an answer with `metricsText()` has. */
export const metricsType = 'text/plain; version=0.0.4; charset=utf-8'

/**
 * The figures of pools, of their budgets and of their backups, in the text format of Prometheus. It takes some microseconds for each pool, as
 * `stats()` does, and asks no backup for anything that it would have to look up.
 *
 * ```ts
 * response.setHeader('content-type', metricsType).end(metricsText())
 * ```
 *
 * Names follow the conventions of Prometheus: bytes, seconds and dollars, `_total` for what only grows. Pools of the same name are told apart by a
 * number. Throws `TypeError` for an option that there is not.
 */
export function metricsText(options: MetricsOptions = {}): string {
  assertKnownOptions(options, ['pools', 'durations'], 'metricsText')
  const { pools = livePools(), durations } = options
  const lines: string[] = []
  for (const [metric, readings] of readingsOf(pools)) {
    const name = prometheusName(metric)
    lines.push(`# HELP ${name} ${metric.help}`, `# TYPE ${name} ${metric.kind}`)
    for (const { value, labels } of readings) lines.push(`${name}${labelText(labels)} ${numberText(value)}`)
  }
  if (durations !== undefined) lines.push(...durationLines(durations))
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`
}

function prometheusName({ name, unit, kind }: Metric): string {
  const unitPart = unit === 'none' ? '' : `_${unit}`
  return `spillway_${name.replaceAll('.', '_')}${unitPart}${kind === 'counter' ? '_total' : ''}`
}

function durationLines(durations: CallDurations): string[] {
  return callKinds.flatMap((kind) => {
    const byName = durations.of(kind)
    if (byName.size === 0) return []
    const name = `spillway_${kind.name.replaceAll('.', '_')}_duration_seconds`
    const lines = [`# HELP ${name} ${kind.help}`, `# TYPE ${name} histogram`]
    for (const [label, histogram] of byName)
      lines.push(...histogramLines(name, { [kind.by]: label }, histogram))
    return lines
  })
}

function histogramLines(name: string, labels: Reading['labels'], histogram: DurationHistogram): string[] {
  let sum = 0
  const buckets = histogram.counts.map((count, index) => {
    sum += count
    const le = index < boundsSeconds.length ? numberText(boundsSeconds[index]!) : '+Inf'
    return `${name}_bucket${labelText({ ...labels, le })} ${sum}`
  })
  const text = labelText(labels)
  return [...buckets, `${name}_sum${text} ${histogram.sumSeconds}`, `${name}_count${text} ${histogram.count}`]
}

function labelText(labels: Reading['labels']): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`)
  return parts.length === 0 ? '' : `{${parts.join(',')}}`
}

/** As the text format asks for it in the value of a label. */
function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf'
  return String(value)
}
