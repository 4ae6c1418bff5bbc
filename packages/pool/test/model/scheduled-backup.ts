import type { Backup } from '@spillway/core'
import type { Scheduler } from 'fast-check'

/** A backup whose calls begin and end when the scheduler says so. */
export function scheduledBackup(inner: Backup, scheduler: Scheduler): Backup {
  let calls = 0
  const held = async <Value>(method: string, call: () => Promise<Value>): Promise<Value> => {
    const label = `${inner.name} ${method} ${++calls}`
    await scheduler.schedule(Promise.resolve(), `${label} begins`)
    const value = await call()
    await scheduler.schedule(Promise.resolve(), `${label} ends`)
    return value
  }
  return {
    name: inner.name,
    capabilities: { ...inner.capabilities, preferredBatchPages: 8, preferredCallsInFlight: 3 },
    backupPages: (spans, options) => held('backupPages', () => inner.backupPages(spans, options)),
    copyPages: (handles, spans, options) => held('copyPages', () => inner.copyPages(handles, spans, options)),
    drop: (handles) => held('drop', () => inner.drop(handles)),
    bytesAvailable: () => held('bytesAvailable', () => inner.bytesAvailable()),
    reserve: (bytes) => inner.reserve(bytes),
    stats: () => inner.stats(),
    close: () => inner.close(),
    [Symbol.asyncDispose]: () => inner.close(),
  }
}
