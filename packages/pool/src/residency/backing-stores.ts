import { type Backup, SpillwayError } from '@spillway/core'
import { busy, partial } from '../table/chunks.ts'
import { BackingStore } from './backing-store.ts'
import type { BufferState } from './buffer-state.ts'
import type { ResidentSet } from './resident-set.ts'

/** Throws `TypeError` for what is no backup, `RangeError` for one whose pages are not of this size (T55). */
export function assertBackup(backup: Backup, pageSizeBytes: number | undefined): void {
  const missing = methods.filter((method) => typeof backup?.[method] !== 'function')
  if (missing.length > 0) {
    const isPromise = typeof (backup as unknown as PromiseLike<unknown> | undefined)?.then === 'function'
    const hint = isPromise ? '; this is a promise: await it' : ''
    throw new TypeError(`a backup needs ${missing.join(', ')}${hint}`)
  }
  if (typeof backup.capabilities !== 'object')
    throw new TypeError(`backup ${backup.name} has no capabilities`)
  const found = backup.capabilities.pageSizeBytes
  if (pageSizeBytes === undefined || found === pageSizeBytes) return
  throw new RangeError(`backup ${backup.name} has pages of ${found} bytes; the pool's have ${pageSizeBytes}`)
}

const methods = ['backupPages', 'copyPages', 'drop', 'bytesAvailable'] as const

/** The backups that the buffers of a pool use, each once however many use it (T83–T85). */
export class BackingStores {
  readonly #residents: ResidentSet
  readonly #pageSizeBytes: number
  readonly #checksHandles: boolean
  readonly #stores = new Map<Backup, BackingStore>()

  constructor(residents: ResidentSet, pageSizeBytes: number, checksHandles = false) {
    this.#checksHandles = checksHandles
    this.#residents = residents
    this.#pageSizeBytes = pageSizeBytes
  }

  values(): IterableIterator<BackingStore> {
    return this.#stores.values()
  }

  /** The store of a backup. Throws like `assertBackup`. */
  of(backup: Backup): BackingStore {
    let store = this.#stores.get(backup)
    if (store === undefined) {
      assertBackup(backup, this.#pageSizeBytes)
      store = new BackingStore(backup, this.#checksHandles)
      this.#stores.set(backup, store)
    }
    return store
  }

  /** Drops stores that no buffer uses, once their backups have released all that was given up. */
  #forget(): void {
    for (const store of this.#stores.values()) {
      if (store.users === 0 && store.dropFailures === 0) this.#stores.delete(store.backup)
    }
  }

  /**
   * Gives a buffer another backup (T85). Throws `EBUSY` while pages are stored in the one it has: nobody else could bring
   * them back (T55). Copies of what is in memory are dropped.
   */
  async replace(state: BufferState, backup: Backup | undefined): Promise<void> {
    if (backup !== undefined) assertBackup(backup, this.#pageSizeBytes)
    const { chunks } = this.#residents
    const isOurs = (test: (chunk: number) => boolean) => chunks.find(state.id, test)
    for (;;) {
      const stored = state.table.storedPages
      const half = isOurs((chunk) => chunks.has(chunk, partial) && chunks.storedAt(chunk) !== 0)
      if (stored > 0 || half !== 0) {
        const name = state.store?.name
        throw new SpillwayError(
          'EBUSY',
          `buffer ${state.label} has pages in backup ${name} only; restore or purge it before it gets another`,
          { buffer: state.label, backup: name },
        )
      }
      const busyChunk = isOurs((chunk) => chunks.has(chunk, busy))
      if (busyChunk !== 0) await chunks.whenSettled(busyChunk)
      else if (state.images?.isSaving) await state.images.saved()
      else break
    }
    isOurs((chunk) => {
      this.#residents.giveUpStored(chunk)
      return false
    })
    const former = state.store
    // Images are a backup's: in another one the buffer has none.
    state.images = undefined
    // Looked up again: a store without users may have been forgotten during a wait (B9).
    const next = backup === undefined ? undefined : this.of(backup)
    this.#residents.changeStore(state, next)
    if (next !== undefined) next.users++
    isOurs((chunk) => {
      this.#residents.relist(chunk)
      return false
    })
    // Pages that fill memory may have a place to go from now on.
    this.#residents.unpinned()
    await this.endUse(former)
  }

  /** A buffer uses it no more; once all that was given up is released, nobody may. */
  async endUse(store: BackingStore | undefined): Promise<void> {
    if (store === undefined) return
    await store.settled()
    store.users--
    this.#forget()
  }
}
