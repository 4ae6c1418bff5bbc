import type {
  Backup,
  BackupPagesOptions,
  BackupResult,
  CopyDone,
  CopyResult,
  HandleRun,
  Reservation,
  TransferOptions,
} from '../contract.ts'
import { defineBackup } from '../define/define-backup.ts'
import type { PlacedPages } from '../define/definition.ts'
import { abortError, SpillwayError, staleHandleError } from '../errors.ts'
import { pace, sliceBytes } from '../pace.ts'
import type { SlotAllocator } from '../slots/slot-allocator.ts'
import { SpanCursor } from '../spans.ts'
import { assertByteCount, assertKnownOptions, assertPageSize } from '../validation.ts'
import { KeptPages, MemoryMedium } from './memory-medium.ts'
import { Reservations } from './reservations.ts'
import type { SlabStore } from './slab-store.ts'

export interface MemoryBackupOptions {
  /** Size of every page in bytes: a power of two from 4 KiB to 2 MiB. @default 4096 */
  readonly pageSizeBytes?: number | undefined
  /** Most bytes it holds; a backup without a bound would only move the problem. @default 1 GiB */
  readonly capacityBytes?: number | undefined
  /** Names it in errors and statistics. @default 'memory' */
  readonly name?: string | undefined
  /** What its images and their pages are left in, for the next backup to be opened with it. Without it there are no images. */
  readonly medium?: MemoryMedium | undefined
}

/**
 * Keeps pages in the memory of the process: the reference that other backups are compared with, and what tests use.
 * Pages lie in slabs, never in a Buffer of their own. With a `medium` it can hold images: a stand-in for a disk. Throws
 * `RangeError` for a bad size or capacity; `EBUSY` when the medium is in use, `EINVAL` when it was made with another size or capacity.
 */
export function memoryBackup(options: MemoryBackupOptions = {}): Backup {
  assertKnownOptions(options, ['pageSizeBytes', 'capacityBytes', 'name', 'medium'], 'memoryBackup')
  const { pageSizeBytes = 4096, capacityBytes = 2 ** 30, name = 'memory' } = options
  assertPageSize(pageSizeBytes)
  assertByteCount(capacityBytes, 'capacityBytes')
  if (capacityBytes < pageSizeBytes) {
    throw new RangeError(`capacityBytes is ${capacityBytes}; it must hold a page of ${pageSizeBytes}`)
  }
  const { medium } = options
  if (medium !== undefined && !(medium instanceof MemoryMedium)) {
    throw new TypeError(`medium is ${String(medium)}; it must be a MemoryMedium`)
  }
  const capacityPages = Math.floor(capacityBytes / pageSizeBytes)
  const kept = medium?.open(name, pageSizeBytes, capacityPages) ?? new KeptPages(pageSizeBytes, capacityPages)
  const pages = new PagesInSlabs(name, kept)
  const images = kept.holds && kept.imagesOf(name, kept.holds)
  return defineBackup({
    name,
    medium: 'memory',
    pageSizeBytes,
    placed: pages,
    persistent: medium !== undefined,
    images,
    startCopy: pages.startCopy.bind(pages),
    mediumBytes: () => pages.mediumBytes,
    figures: () => kept.figures,
    release: () => kept.close(),
  })
}

class PagesInSlabs implements PlacedPages {
  readonly #backup: string
  readonly #kept: KeptPages
  readonly #slots: SlotAllocator
  readonly #slabs: SlabStore
  readonly #reservations: Reservations
  readonly #pageSizeBytes: number
  readonly #slicePages: number

  constructor(backup: string, kept: KeptPages) {
    const { pageSizeBytes } = kept
    this.#backup = backup
    this.#kept = kept
    this.#pageSizeBytes = pageSizeBytes
    this.#slicePages = Math.max(1, sliceBytes / pageSizeBytes)
    this.#slots = kept.slots
    this.#slabs = kept.slabs
    this.#reservations = new Reservations(backup, pageSizeBytes, () => this.#slots.freeSlots)
  }

  get mediumBytes(): number {
    return this.#slabs.bytes
  }

  async store(
    spans: readonly Uint8Array[],
    pageCount: number,
    options: BackupPagesOptions,
  ): Promise<BackupResult> {
    const reservation = this.#reservations.own(options.reservation)
    const source = new SpanCursor(spans)
    const handles: HandleRun[] = []
    let done = 0
    while (done < pageCount) {
      if (options.signal?.aborted) return { handles, error: abortError(options.signal, this.#at(done)) }
      const wanted = Math.min(pageCount - done, this.#reservations.allowance(reservation))
      const run = wanted > 0 ? this.#slots.allocateRun(wanted) : undefined
      if (run === undefined) {
        return {
          handles,
          error: new SpillwayError('ENOSPC', `backup ${this.#backup} is full`, this.#at(done)),
        }
      }
      const reserved = this.#reservations.consume(reservation, run.count)
      const { stored, error } = await this.#fill(run, source, options.signal)
      done += stored
      if (stored > 0) handles.push({ first: run.first, count: stored })
      if (stored > 0) this.#kept.holds?.hold([{ first: run.first, count: stored }])
      if (stored < run.count) {
        // What was taken and not filled goes back; nobody has seen these handles.
        this.#slots.freeRun({ first: run.first + stored, count: run.count - stored })
        this.#reservations.restore(reservation, Math.max(0, reserved - stored))
      }
      if (error !== undefined) return { handles, error: this.#gone(error, done) }
    }
    return { handles }
  }

  firstNotLive(handles: readonly HandleRun[]): number | undefined {
    return this.#slots.firstNotLive(handles)
  }

  async copy(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<CopyResult> {
    const target = new SpanCursor(spans)
    let copied = 0
    for (const { first, count } of handles) {
      for (let offset = 0; offset < count; offset += this.#slicePages) {
        const part = { first: first + offset, count: Math.min(this.#slicePages, count - offset) }
        const turn = pace(part.count * this.#pageSizeBytes)
        if (turn !== undefined) await turn
        if (options.signal?.aborted) return { copied, error: abortError(options.signal, this.#at(copied)) }
        // The handles may have been dropped during the pause, and their slots given to somebody else.
        const dropped = this.#slots.firstNotLive([part])
        if (dropped !== undefined) return { copied, error: staleHandleError(this.#backup, dropped) }
        try {
          this.#slabs.read(this.#slots.slotOf(part.first), part.count, target)
        } catch (failure) {
          return { copied, error: this.#gone(failure, copied) }
        }
        copied += part.count
      }
    }
    return { copied }
  }

  /** Copies at once what is live. */
  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    this.#slabs.readInto(span, this.#slots.slotOf(first))
    done(span.byteLength / this.#pageSizeBytes)
    return true
  }

  drop(handles: readonly HandleRun[]): number | undefined {
    return this.#kept.drop(handles)
  }

  bytesAvailable(): number {
    return this.#reservations.commonPages * this.#pageSizeBytes
  }

  reserve(bytes: number): Reservation {
    return this.#reservations.reserve(bytes)
  }

  isOwnReservation(reservation: Reservation): boolean {
    return this.#reservations.isOwn(reservation)
  }

  /** Fills the slots of a run in slices; says how many pages, and what failed; nothing when the signal stopped it. */
  async #fill(
    run: HandleRun,
    source: SpanCursor,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly stored: number; readonly error?: unknown }> {
    const slot = this.#slots.slotOf(run.first)
    let stored = 0
    while (stored < run.count) {
      const count = Math.min(this.#slicePages, run.count - stored)
      const turn = pace(this.#slabs.workBytes(slot + stored, count))
      if (turn !== undefined) await turn
      if (signal?.aborted) break
      try {
        this.#slabs.write(slot + stored, count, source)
      } catch (error) {
        return { stored, error }
      }
      stored += count
    }
    return { stored }
  }

  #gone(cause: unknown, page: number): SpillwayError {
    return new SpillwayError('EFAULT', 'the memory is gone', { ...this.#at(page), cause })
  }

  #at(page: number): { backup: string; page: number } {
    return { backup: this.#backup, page }
  }
}
