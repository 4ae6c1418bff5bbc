import type { Backup } from '@spillway/core'
import type { Scheduler } from 'fast-check'

/** A backup whose calls begin and end when the scheduler says so; with `startsCopies`, copies without a promise, too. */
export function scheduledBackup(inner: Backup, scheduler: Scheduler, startsCopies: boolean): Backup {
  let calls = 0
  const held = async <Value>(method: string, call: () => Promise<Value>): Promise<Value> => {
    const label = `${inner.name} ${method} ${++calls}`
    await scheduler.schedule(Promise.resolve(), `${label} begins`)
    const value = await call()
    await scheduler.schedule(Promise.resolve(), `${label} ends`)
    return value
  }
  const backup: Backup = {
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
  if (startsCopies) {
    backup.startCopy = (first, span, done) => {
      const count = span.byteLength / inner.capabilities.pageSizeBytes
      held('startCopy', () => inner.copyPages([{ first, count }], [span])).then(({ copied, error }) =>
        error === undefined ? done(copied) : done(copied, error),
      )
      return true
    }
  }
  return backup
}
