#!/usr/bin/env bash
# opentelemetry-gauge-outlives-what-it-measured.sh: the metrics SDK of OpenTelemetry exports a gauge for what is not observed any more.
#
# An observable gauge reports what its callbacks observe when metrics are collected. When a callback is removed, or stops to observe one
# set of attributes because what it measured is gone, a reader with cumulative temporality (the default, and what Prometheus needs) goes
# on exporting the last value for ever, with the time of each collection as if it had just been observed. With delta temporality the
# point is gone at the next collection. So whether a closed pool, connection or queue is still "in use" depends on the exporter.
#
# Nothing of Spillway runs. Ends with 0 when it behaves as it did, with 1 when that has changed, with 77 where it cannot run.
# Seen with @opentelemetry/sdk-metrics 3.1.1 and @opentelemetry/api 1.10.0 on Node 26.10, 29 November 2026; before, and three collections after:
#   cumulative, callback removed: one=5 two=7; then one=5 now, two=7 now; one=5 now, two=7 now; one=5 now, two=7 now
#   cumulative, one not observed: one=5 two=7; then one=5 now, two=7 now; one=5 now, two=7 now; one=5 now, two=7 now
#   delta, callback removed: one=5 two=7; then two=7 now; two=7 now; two=7 now
#   delta, one not observed: one=5 two=7; then two=7 now; two=7 now; two=7 now
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent @opentelemetry/sdk-metrics@3.1.1 @opentelemetry/api@1.10.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'

const milliseconds = ([seconds, nanoseconds]) => seconds * 1000 + nanoseconds / 1e6

async function look(temporality, isRemoved) {
  const exporter = new InMemoryMetricExporter(temporality)
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })
  const provider = new MeterProvider({ readers: [reader] })
  const gauge = provider.getMeter('test').createObservableGauge('resident')
  let isThere = true
  const one = (result) => isThere && result.observe(5, { name: 'one' })
  gauge.addCallback(one)
  gauge.addCallback((result) => result.observe(7, { name: 'two' }))
  const collect = async () => {
    exporter.reset()
    await new Promise((resolve) => setTimeout(resolve, 20))
    const startedAt = Date.now() - 5
    await reader.forceFlush()
    return exporter
      .getMetrics()
      .flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics.flatMap(({ dataPoints }) => dataPoints)))
      .map(({ attributes, value, endTime }) => ({
        text: `${attributes.name}=${value}`,
        when: milliseconds(endTime) >= startedAt ? 'now' : 'before',
      }))
  }
  const first = (await collect()).map(({ text }) => text).join(' ')
  if (isRemoved) gauge.removeCallback(one)
  else isThere = false
  const later = []
  for (let round = 0; round < 3; round++)
    later.push((await collect()).map(({ text, when }) => `${text} ${when}`).join(', '))
  await provider.shutdown()
  return `${first}; then ${later.join('; ')}`
}

for (const [name, temporality] of [['cumulative', AggregationTemporality.CUMULATIVE], ['delta', AggregationTemporality.DELTA]])
  for (const [how, isRemoved] of [['callback removed', true], ['one not observed', false]])
    console.log(`${name}, ${how}: ${await look(temporality, isRemoved)}`)
PROGRAM
result=$(node try.mjs) || exit 1
echo "$result"
expected='cumulative, callback removed: one=5 two=7; then one=5 now, two=7 now; one=5 now, two=7 now; one=5 now, two=7 now
cumulative, one not observed: one=5 two=7; then one=5 now, two=7 now; one=5 now, two=7 now; one=5 now, two=7 now
delta, callback removed: one=5 two=7; then two=7 now; two=7 now; two=7 now
delta, one not observed: one=5 two=7; then two=7 now; two=7 now; two=7 now'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
