import { CallGate } from '../call-gate.ts'
import type {
  Backup,
  BackupCapabilities,
  BackupPagesOptions,
  BackupResult,
  BackupStats,
  CopyDone,
  CopyResult,
  HandleRun,
  ImageStore,
  Reservation,
  TransferOptions,
} from '../contract.ts'
import { tellCopied } from '../copy-done.ts'
import { SpillwayError } from '../errors.ts'
import { countHandles, countStartedCopy, printedNoBackup } from '../validation.ts'

export interface SharedBackup {
  /** One more user. Throws `EBADF` once the last reference was closed. */
  reference(): Backup
  /** References that are open. */
  readonly references: number
}

/**
 * Lets several owners use one backup (T83, T84): each takes a reference and closes it; the last close closes the
 * backup. Closing needs a first reference: until then the backup is still its opener's.
 *
 *   shareBackup(backup) ── reference() ──▶ pool A ── close()
 *                       └─ reference() ──▶ pool B ── close() ──▶ backup.close()
 *
 * Handles are unique in the whole backup, so that dropping one's own pages never touches another's (T83). References
 * count lifetimes and traffic; they are no walls: a handle may be handed from one owner to another and is good in any
 * reference of the same backup. Keeping a list of who made which handle would cost more than the pages' own metadata.
 * What a reference has not dropped when it closes it counts as leaked (T10); those pages stay until the last close. Throws `TypeError` for
 * what is no backup.
 */
export function shareBackup(backup: Backup): SharedBackup {
  if (typeof backup?.backupPages !== 'function')
    throw new TypeError(`shareBackup takes a backup; it was given ${printedNoBackup(backup)}`)
  let references = 0
  let closed = false
  const leave = async (): Promise<void> => {
    references--
    if (references > 0) return
    closed = true
    await backup.close()
  }
  return {
    get references() {
      return references
    },
    reference() {
      if (closed) {
        throw new SpillwayError('EBADF', `the last reference to backup ${backup.name} is closed`, {
          backup: backup.name,
        })
      }
      references++
      return new BackupReference(backup, leave)
    },
  }
}

// Beyond so many, reservations that were used up are forgotten.
const trackedReservations = 64

class BackupReference implements Backup {
  readonly #backup: Backup
  readonly #leave: () => Promise<void>
  readonly #gate: CallGate
  readonly images?: ImageStore
  #reservations: Reservation[] = []
  #backedUpPages = 0
  #loadedPages = 0
  #copiedPages = 0
  #droppedPages = 0
  #leakedPages = 0

  constructor(backup: Backup, leave: () => Promise<void>) {
    this.#backup = backup
    this.#leave = leave
    this.#gate = new CallGate(backup.name)
    if (backup.images !== undefined) this.images = this.#imagesOf(backup.images)
  }

  get name(): string {
    return this.#backup.name
  }

  get capabilities(): BackupCapabilities {
    return this.#backup.capabilities
  }

  backupPages(spans: readonly Uint8Array[], options?: BackupPagesOptions): Promise<BackupResult> {
    return this.#gate.run(async () => {
      const result = await this.#backup.backupPages(spans, options)
      for (const { count } of result.handles) this.#backedUpPages += count
      return result
    })
  }

  copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options?: TransferOptions,
  ): Promise<CopyResult> {
    return this.#gate.run(async () => {
      const result = await this.#backup.copyPages(handles, spans, options)
      this.#copiedPages += result.copied
      return result
    })
  }

  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    countStartedCopy(first, span, done, this.capabilities.pageSizeBytes)
    const backup = this.#backup
    if (backup.startCopy === undefined || !this.#gate.enter()) return false
    let began = false
    try {
      began = backup.startCopy(first, span, (copied, error) => {
        this.#copiedPages += copied
        tellCopied(done, copied, error)
        this.#gate.leave()
      })
    } finally {
      if (!began) this.#gate.leave()
    }
    return began
  }

  drop(handles: readonly HandleRun[]): Promise<void> {
    return this.#gate.run(async () => {
      const pages = countHandles(handles)
      await this.#backup.drop(handles)
      this.#droppedPages += pages
    })
  }

  bytesAvailable(): Promise<number> {
    return this.#gate.run(() => this.#backup.bytesAvailable())
  }

  reserve(bytes: number): Promise<Reservation> {
    return this.#gate.run(async () => {
      const reservation = await this.#backup.reserve(bytes)
      if (this.#reservations.length >= trackedReservations) {
        this.#reservations = this.#reservations.filter((tracked) => tracked.bytes > 0)
      }
      this.#reservations.push(reservation)
      return reservation
    })
  }

  /** Pages are counted for this reference alone; what the medium holds and its writebacks are the whole backup's. */
  stats(): BackupStats {
    return {
      ...this.#backup.stats(),
      livePages: this.#heldPages,
      backedUpPages: this.#backedUpPages,
      copiedPages: this.#copiedPages,
      droppedPages: this.#droppedPages,
      leakedPages: this.#leakedPages,
    }
  }

  /** Holds that this reference was given and has not returned. */
  get #heldPages(): number {
    return this.#backedUpPages + this.#loadedPages - this.#droppedPages
  }

  /** Images are the whole backup's; what `load` gives counts for this reference. */
  #imagesOf(images: ImageStore): ImageStore {
    const gate = this.#gate
    return {
      save: (name, content) => gate.run(() => images.save(name, content)),
      load: (name) =>
        gate.run(async () => {
          const image = await images.load(name)
          this.#loadedPages += image.pages
          return image
        }),
      names: () => gate.run(() => images.names()),
      remove: (name) => gate.run(() => images.remove(name)),
    }
  }

  close(): Promise<void> {
    return this.#gate.close(async () => {
      if (!this.capabilities.persistent) {
        this.#leakedPages = Math.max(0, this.#heldPages)
      }
      // Space set aside for a user who left would be nobody's.
      for (const reservation of this.#reservations) await reservation.release()
      await this.#leave()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
