import {
  abortError,
  assertBackupPagesOptions,
  assertByteCount,
  assertTransferOptions,
  type Backup,
  type BackupCapabilities,
  type BackupPagesOptions,
  type BackupResult,
  CallGate,
  type CopyDone,
  type CopyResult,
  countCopy,
  countHandles,
  countPages,
  countStartedCopy,
  type HandleRun,
  pace,
  type Reservation,
  type SlotAllocator,
  SpanCursor,
  sliceBytes,
  systemError,
  type TransferOptions,
  tellCopied,
  unclosedBackups,
} from '@spillway/core'
import { Capacity } from './capacity.ts'
import type { Headroom } from './headroom.ts'
import { LiveHandles } from './live-handles.ts'
import type { Medium } from './media/medium.ts'
import { PageWriter } from './page-writer.ts'
import type { HandleTable } from './shared/handle-table.ts'
import { SlotMemory } from './slot-memory.ts'
import type { ShmemBackupStats } from './stats.ts'

/** What a backup is made of; see `open.ts`. */
export interface ShmemParts {
  readonly name: string
  readonly pageSizeBytes: number
  readonly capacityBytes: number
  readonly warmBytes: number
  readonly medium: Medium
  readonly mediumReason: string
  readonly headroom: Headroom
  readonly slots: SlotAllocator
  /**
   * Copied in one synchronous step. From 1 MiB on `memcpy` writes past the caches, twice as fast as with half of that; and new
   * memory for 1 MiB takes 0.6 ms, which is as long as the event loop should wait. @default 1 MiB
   */
  readonly sliceBytes?: number | undefined
  /** Tells attached processes which handles are live. */
  readonly handleTable?: HandleTable | undefined
}

/** Freed in one synchronous step. */
const releasedSlots = 2 ** 15
/** To free a slot takes as long as to copy so much. */
const releasedBytes = 32
const batchBytes = 8 * 1024 ** 2

/**
 * Pages in shared memory. `PageWriter` stores them. Slices are synchronous: between the check that a handle is live and
 * the end of its copy nothing can drop it.
 */
export class ShmemBackup implements Backup {
  readonly name: string
  readonly capabilities: BackupCapabilities
  readonly #pageSizeBytes: number
  readonly #sliceSlots: number
  readonly #medium: Medium
  readonly #mediumReason: string
  readonly #capacityBytes: number
  readonly #slots: SlotAllocator
  readonly #memory: SlotMemory
  readonly #capacity: Capacity
  readonly #live: LiveHandles
  readonly #writer: PageWriter
  readonly #gate: CallGate
  readonly #watched: object
  #copiedPages = 0
  #droppedPages = 0
  #leakedPages = 0

  /** Use `openShmemBackup`. */
  constructor(parts: ShmemParts) {
    const { name, pageSizeBytes, medium, headroom, slots } = parts
    this.name = name
    this.#pageSizeBytes = pageSizeBytes
    this.#sliceSlots = Math.max(1, (parts.sliceBytes ?? sliceBytes) / pageSizeBytes)
    this.#medium = medium
    this.#mediumReason = parts.mediumReason
    this.#capacityBytes = parts.capacityBytes
    this.#live = new LiveHandles({ backup: name, slots, table: parts.handleTable })
    this.#slots = slots
    this.#memory = new SlotMemory({ medium, headroom, pageSizeBytes, warmBytes: parts.warmBytes })
    this.#capacity = new Capacity({
      backup: name,
      pageSizeBytes,
      slots,
      memory: this.#memory,
      sliceSlots: this.#sliceSlots,
    })
    this.#writer = new PageWriter({
      backup: name,
      pageSizeBytes,
      sliceSlots: this.#sliceSlots,
      medium,
      slots,
      memory: this.#memory,
      capacity: this.#capacity,
      live: this.#live,
    })
    this.#gate = new CallGate(name)
    this.#watched = unclosedBackups.watch(this, name, closing(medium))
    this.capabilities = Object.freeze({
      pageSizeBytes,
      medium: medium.kind,
      preferredBatchPages: Math.max(1, batchBytes / pageSizeBytes),
      preferredCallsInFlight: 1,
      persistent: false,
      shareable: parts.handleTable !== undefined,
      reserves: true,
      detectsCorruption: false,
      stores: true,
    })
  }

  async backupPages(spans: readonly Uint8Array[], options: BackupPagesOptions = {}): Promise<BackupResult> {
    assertBackupPagesOptions(options)
    const pageCount = countPages(spans, this.#pageSizeBytes)
    const reservation = this.#capacity.own(options.reservation)
    return this.#gate.run(() =>
      this.#writer.store(new SpanCursor(spans), pageCount, reservation, options.signal),
    )
  }

  async copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions = {},
  ): Promise<CopyResult> {
    assertTransferOptions(options)
    countCopy(handles, spans, this.#pageSizeBytes)
    return this.#gate.run(async () => {
      await this.#live.assertLive(handles)
      return this.#copyPages(handles, new SpanCursor(spans), options.signal)
    })
  }

  async #copyPages(
    handles: readonly HandleRun[],
    target: SpanCursor,
    signal: AbortSignal | undefined,
  ): Promise<CopyResult> {
    let copied = 0
    for (const { first, count } of handles) {
      let sliceSlots = 0
      for (let offset = 0; offset < count; offset += sliceSlots) {
        sliceSlots = Math.min(this.#sliceSlots, count - offset)
        const turn = pace(sliceSlots * this.#pageSizeBytes)
        if (turn !== undefined) await turn
        if (signal?.aborted) return { copied, error: abortError(signal, this.#at(copied)) }
        // Others had their turn: the handles may have been dropped, and their slots be somebody else's.
        const stale = this.#live.firstStale([{ first: first + offset, count: sliceSlots }])
        if (stale !== undefined) return { copied, error: this.#live.staleError(stale) }
        const slot = this.#slots.slotOf(first + offset)
        try {
          const offsetBytes = slot * this.#pageSizeBytes
          target.each(sliceSlots * this.#pageSizeBytes, (span, start, length, moved) => {
            this.#medium.read(offsetBytes + moved, span, start, length)
          })
        } catch (failure) {
          return { copied, error: this.#readError(failure, copied) }
        }
        copied += sliceSlots
        this.#copiedPages += sliceSlots
      }
    }
    return { copied }
  }

  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    const count = countStartedCopy(first, span, done, this.#pageSizeBytes)
    const isAtHand = span.byteLength <= sliceBytes && this.#live.isLive(first, count)
    if (!isAtHand || !this.#gate.isOpen) return false
    try {
      this.#medium.read(this.#slots.slotOf(first) * this.#pageSizeBytes, span, 0, span.byteLength)
    } catch (failure) {
      tellCopied(done, 0, this.#readError(failure, 0))
      return true
    }
    this.#copiedPages += count
    tellCopied(done, count)
    return true
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    const count = countHandles(handles)
    this.#gate.assertOpen()
    this.#live.retire(handles)
    this.#droppedPages += count
    await this.#gate.run(() => this.#releaseSlots(handles))
  }

  /** Frees slots whose handles are stale already. */
  async #releaseSlots(handles: readonly HandleRun[]): Promise<void> {
    for (const { first, count } of handles) {
      const slot = this.#slots.slotOf(first)
      for (let done = 0; done < count; done += releasedSlots) {
        const part = Math.min(releasedSlots, count - done)
        const turn = pace(part * releasedBytes)
        if (turn !== undefined) await turn
        this.#live.release(slot + done, part)
        this.#memory.release(slot + done, part)
      }
    }
  }

  async bytesAvailable(): Promise<number> {
    this.#gate.assertOpen()
    return Math.min(this.#capacity.freeBytes, this.#memory.obtainableBytes)
  }

  async reserve(bytes: number): Promise<Reservation> {
    assertByteCount(bytes, 'bytes')
    return this.#gate.run(async () => {
      try {
        return await this.#capacity.reserve(bytes)
      } catch (failure) {
        throw systemError(failure, `cannot reserve ${bytes} bytes in ${this.#medium.kind}`, {
          backup: this.name,
        })
      }
    })
  }

  stats(): ShmemBackupStats {
    return {
      livePages: this.#live.count - this.#leakedPages,
      backedUpPages: this.#writer.storedPages,
      copiedPages: this.#copiedPages,
      droppedPages: this.#droppedPages,
      mediumBytes: this.#medium.heldBytes(),
      writebackErrors: 0,
      leakedPages: this.#leakedPages,
      medium: this.#medium.kind,
      access: this.#medium.access,
      mediumReason: this.#mediumReason,
      capacityBytes: this.#capacityBytes,
      warmBytes: this.#memory.warmBytes,
      reservedBytes: this.#capacity.reservedBytes,
      givenBackBytes: this.#memory.givenBackBytes,
      giveBackErrors: this.#memory.giveBackErrors,
      metadataBytes: this.#slots.metadataBytes + this.#live.metadataBytes + this.#memory.metadataBytes,
    }
  }

  close(): Promise<void> {
    unclosedBackups.unwatch(this.#watched)
    return this.#gate.close(async () => {
      await this.#memory.stop()
      this.#leakedPages = this.#live.count
      this.#medium.close()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #readError(failure: unknown, page: number): Error {
    return systemError(failure, `cannot read pages from ${this.#medium.kind}`, this.#at(page))
  }

  #at(page: number): { backup: string; page: number } {
    return { backup: this.name, page }
  }
}

/** Closes the medium. Made here, where no backup is in sight that the function could keep from being collected. */
function closing(medium: Medium): () => void {
  return () => medium.close()
}
