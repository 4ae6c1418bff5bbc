import type { PoolStats } from '../../src/index.ts'

/** What many model runs did together. */
export class Tally {
  steps = 0
  calls = 0
  /** Calls that reached the pool; others found nothing to do, such as no pin to write to. */
  attempts = 0
  readonly callsByKind = new Map<string, number>()
  readonly errors = new Map<string, number>()
  readonly pages = {
    evictedDirty: 0,
    evictedClean: 0,
    backedUp: 0,
    restored: 0,
    purged: 0,
  }
  readonly events = { splitChunks: 0, backupFailures: 0, restoreFailures: 0, waits: 0, refusals: 0 }

  noteCall(kind: string): void {
    this.calls++
    this.callsByKind.set(kind, (this.callsByKind.get(kind) ?? 0) + 1)
  }

  noteError(code: string): void {
    this.errors.set(code, (this.errors.get(code) ?? 0) + 1)
  }

  noteStats(stats: PoolStats): void {
    const { pages, events } = this
    pages.evictedDirty += stats.evictedDirtyPages
    pages.evictedClean += stats.evictedCleanPages
    pages.backedUp += stats.backedUpPages
    pages.restored += stats.restoredPages
    pages.purged += stats.purgedPages
    events.splitChunks += stats.splitChunks
    events.backupFailures += stats.backupFailures
    events.restoreFailures += stats.restoreFailures
    events.waits += stats.waits
    events.refusals += stats.refusals
  }

  toString(): string {
    const list = (values: Iterable<[string, number]>) =>
      [...values]
        .sort((one, other) => other[1] - one[1])
        .map(([name, count]) => `${name} ${count}`)
        .join(', ')
    return [
      `steps    ${this.steps}, calls ${this.calls}, of which the pool got ${this.attempts}`,
      `calls    ${list(this.callsByKind)}`,
      `pages    ${list(Object.entries(this.pages))}`,
      `events   ${list(Object.entries(this.events))}`,
      `errors   ${list(this.errors)}`,
    ].join('\n')
  }
}
