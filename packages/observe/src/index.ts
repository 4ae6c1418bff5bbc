/**
 * Looks into the pools of this process: metrics for Prometheus and OpenTelemetry, and a dashboard.
 *
 * @module @spillway/observe
 */

export { CallDurations } from './call-durations.ts'
export { type Dashboard, type DashboardOptions, openDashboard } from './dashboard.ts'
export {
  type FigureSink,
  type InstrumentOptions,
  type Meters,
  type ObservingMeter,
  registerMeters,
} from './open-telemetry.ts'
export { type MetricsOptions, metricsText, metricsType } from './prometheus.ts'
