import { type Backup, nowMs } from '@spillway/core'
import { warn } from '../ground/trace.ts'
import { firstChunk } from '../table/chunk-records.ts'
import { busy, dirtyList } from '../table/chunks.ts'
import type { BackingStore } from './backing-store.ts'
import type { ResidentSet } from './resident-set.ts'

/** Whoever hears of a backup that fails now and then needs to hear it once: again only after so long without a failure. */
const wellForMs = 60_000
/** When each backup failed last, whichever pool or buffer called it. */
const failedAtMs = new WeakMap<Backup, number>()

/**
 * The backups that failed when reclaim last called them. Each is left alone for a while, longer every time (B12):
 *
 *   attempt ─▶ fails ─▶ back-off of 10 ms to 1 s ─▶ next attempt ─▶ …
 *                          │                            └─ well: as if it had never failed
 *                          └─ a claim that comes now waits for that next attempt, and is refused only if it fails too
 */
export class FailingBackups {
  readonly #residents: ResidentSet
  readonly #stores = new Set<BackingStore>()

  constructor(residents: ResidentSet) {
    this.#residents = residents
  }

  /** An attempt of reclaim to store something begins; its number, to be told with how it ended. */
  begin(): number {
    return ++this.#residents.limit.attempts
  }

  note(store: BackingStore, error: Error | undefined, attempt: number): void {
    if (error === undefined) {
      if (this.#stores.delete(store)) this.#residents.order.lookAgain()
      store.noteSuccess()
      return
    }
    this.#stores.add(store)
    const isNews = noteFailed(store.backup)
    if (store.failure === undefined && isNews) {
      const message = `backup ${store.name} fails; reclaim leaves it alone for a while`
      warn('SPILLWAY_BACKUP_FAILING', message, error.message)
    }
    store.noteFailure(error, attempt)
    this.#residents.order.leaveAlone(store)
  }

  /** Those that hold up dirty chunks which could leave otherwise. */
  inTheWay(): BackingStore[] {
    const found = new Set<BackingStore>()
    for (const store of this.#stores) if (store.failure === undefined) this.#stores.delete(store)
    let sought = 0
    for (const store of this.#stores) if (store.dirtyPages > 0) sought++
    const { chunks } = this.#residents
    for (let chunk = firstChunk; chunk < chunks.end && found.size < sought; chunk++) {
      if (chunks.listOf(chunk) !== dirtyList || chunks.ownerOf(chunk) === 0 || chunks.has(chunk, busy))
        continue
      const store = this.#residents.bufferOf(chunk).store!
      if (this.#stores.has(store)) found.add(store)
    }
    return [...found]
  }
}

/** Whether a backup that fails now had not failed for so long that it is to be told. */
function noteFailed(backup: Backup): boolean {
  const now = nowMs()
  const last = failedAtMs.get(backup)
  failedAtMs.set(backup, now)
  return last === undefined || now - last >= wellForMs
}
