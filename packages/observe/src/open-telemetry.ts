import { livePools, type Pool } from '@spillway/pool'
import { boundsSeconds, callKinds, listenToCalls, secondsOf } from './call-durations.ts'
import { type Metric, metrics, readingsOf } from './readings.ts'

/** How an instrument is made. */
export interface InstrumentOptions {
  readonly description: string
  readonly unit: string
  readonly advice?: { readonly explicitBucketBoundaries: number[] }
}

/** What takes figures when a meter collects them. */
export interface FigureSink<Observable> {
  observe(metric: Observable, value: number, attributes: Record<string, string>): void
}

/** What is asked of a meter: a `Meter` of `@opentelemetry/api` has it, of any version from 1.3 on. */
export interface ObservingMeter<Observable> {
  createObservableGauge(name: string, options: InstrumentOptions): Observable
  createObservableCounter(name: string, options: InstrumentOptions): Observable
  createHistogram(
    name: string,
    options: InstrumentOptions,
  ): { record(value: number, attributes: Record<string, string>): void }
  addBatchObservableCallback(
    callback: (sink: FigureSink<Observable>) => void,
    observables: Observable[],
  ): void
  removeBatchObservableCallback(
    callback: (sink: FigureSink<Observable>) => void,
    observables: Observable[],
  ): void
}

/** Meters that are registered; `close` ends them. */
export interface Meters extends Disposable {
  close(): void
}

/**
 * Registers all figures of pools, budgets and backups with a `Meter` of OpenTelemetry, and histograms of how long calls take. Figures are read
 * when the meter collects them. `pools` says which pools there are then; by default all of this thread that are open.
 *
 * ```ts
 * const meters = registerMeters(metrics.getMeter('my-service'))
 * ```
 */
export function registerMeters<Observable>(
  meter: ObservingMeter<Observable>,
  pools: () => readonly Pool[] = livePools,
): Meters {
  const instruments = new Map(metrics.map((metric) => [metric, instrumentOf(meter, metric)] as const))
  const observables = [...instruments.values()]
  const read = (sink: FigureSink<Observable>) => {
    for (const [metric, readings] of readingsOf(pools())) {
      const instrument = instruments.get(metric)!
      for (const { value, labels } of readings) sink.observe(instrument, value, labels)
    }
  }
  const histograms = new Map(
    callKinds.map((kind) => {
      const advice = { explicitBucketBoundaries: [...boundsSeconds] }
      const options = { description: kind.help, unit: 's', advice }
      return [kind, meter.createHistogram(`spillway.${kind.name}.duration`, options)] as const
    }),
  )
  meter.addBatchObservableCallback(read, observables)
  const stopListening = listenToCalls((kind, name, call) =>
    histograms.get(kind)!.record(secondsOf(call), { [kind.by]: name }),
  )
  const close = () => {
    stopListening()
    meter.removeBatchObservableCallback(read, observables)
  }
  return { close, [Symbol.dispose]: close }
}

function instrumentOf<Observable>(meter: ObservingMeter<Observable>, metric: Metric): Observable {
  const options = { description: metric.help, unit: units[metric.unit] }
  const name = `spillway.${metric.name}`
  return metric.kind === 'gauge'
    ? meter.createObservableGauge(name, options)
    : meter.createObservableCounter(name, options)
}

/** Units as UCUM spells them, which OpenTelemetry asks for. */
const units = { bytes: 'By', dollars: '{USD}', none: '' } as const
