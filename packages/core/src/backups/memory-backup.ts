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
  Reservation,
  TransferOptions,
} from '../contract.ts'
import { tellCopied } from '../copy-done.ts'
import { abortError, SpillwayError } from '../errors.ts'
import { pace, sliceBytes } from '../pace.ts'
import { SlotAllocator } from '../slots/slot-allocator.ts'
import { SpanCursor } from '../spans.ts'
import {
  assertBackupPagesOptions,
  assertByteCount,
  assertKnownOptions,
  assertPageSize,
  assertTransferOptions,
  countCopy,
  countHandles,
  countPages,
  countStartedCopy,
} from '../validation.ts'
import { Reservations } from './reservations.ts'
import { SlabStore } from './slab-store.ts'

export interface MemoryBackupOptions {
  /** Size of every page in bytes: a power of two from 4 KiB to 2 MiB. @default 4096 */
  readonly pageSizeBytes?: number | undefined
  /** Most bytes it holds; a backup without a bound would only move the problem. @default 1 GiB */
  readonly capacityBytes?: number | undefined
  /** Names it in errors and statistics. @default 'memory' */
  readonly name?: string | undefined
}

/**
 * Keeps pages in the memory of the process: the reference that other backups are compared with, and what tests use.
 * Pages lie in slabs, never in a Buffer of their own. Throws `RangeError` for a bad size or capacity.
 */
export function memoryBackup(options: MemoryBackupOptions = {}): Backup {
  assertKnownOptions(options, ['pageSizeBytes', 'capacityBytes', 'name'], 'memoryBackup')
  const { pageSizeBytes = 4096, capacityBytes = 2 ** 30, name = 'memory' } = options
  assertPageSize(pageSizeBytes)
  assertByteCount(capacityBytes, 'capacityBytes')
  if (capacityBytes < pageSizeBytes) {
    throw new RangeError(`capacityBytes is ${capacityBytes}; it must hold a page of ${pageSizeBytes}`)
  }
  return new MemoryBackup(name, pageSizeBytes, Math.floor(capacityBytes / pageSizeBytes))
}

class MemoryBackup implements Backup {
  readonly name: string
  readonly capabilities: BackupCapabilities
  readonly #slots: SlotAllocator
  readonly #slabs: SlabStore
  readonly #reservations: Reservations
  readonly #gate: CallGate
  readonly #pageSizeBytes: number
  readonly #slicePages: number
  #backedUpPages = 0
  #copiedPages = 0
  #droppedPages = 0
  #leakedPages = 0

  constructor(name: string, pageSizeBytes: number, capacityPages: number) {
    this.name = name
    this.#pageSizeBytes = pageSizeBytes
    this.#slicePages = Math.max(1, sliceBytes / pageSizeBytes)
    this.#slots = new SlotAllocator({ capacitySlots: capacityPages })
    this.#slabs = new SlabStore(pageSizeBytes)
    this.#reservations = new Reservations(name, pageSizeBytes, () => this.#slots.freeSlots)
    this.#gate = new CallGate(name)
    this.capabilities = Object.freeze({
      pageSizeBytes,
      medium: 'memory',
      preferredBatchPages: Math.max(1, (2 * 2 ** 20) / pageSizeBytes),
      preferredCallsInFlight: 1,
      persistent: false,
      shareable: false,
      reserves: true,
      detectsCorruption: false,
      stores: true,
    })
  }

  async backupPages(spans: readonly Uint8Array[], options: BackupPagesOptions = {}): Promise<BackupResult> {
    assertBackupPagesOptions(options)
    const pageCount = countPages(spans, this.#pageSizeBytes)
    const reservation = this.#reservations.own(options.reservation)
    return this.#gate.run(async () => {
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
            error: new SpillwayError('ENOSPC', `backup ${this.name} is full`, this.#at(done)),
          }
        }
        const reserved = this.#reservations.consume(reservation, run.count)
        const { stored, error } = await this.#store(run, source, options.signal)
        this.#backedUpPages += stored
        done += stored
        if (stored > 0) handles.push({ first: run.first, count: stored })
        if (stored < run.count) {
          // What was taken and not filled goes back; nobody has seen these handles.
          this.#slots.freeRun({ first: run.first + stored, count: run.count - stored })
          this.#reservations.restore(reservation, Math.max(0, reserved - stored))
        }
        if (error !== undefined) return { handles, error: this.#gone(error, done) }
      }
      return { handles }
    })
  }

  async copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions = {},
  ): Promise<CopyResult> {
    assertTransferOptions(options)
    countCopy(handles, spans, this.#pageSizeBytes)
    this.#gate.assertOpen()
    const stale = this.#slots.firstNotLive(handles)
    if (stale !== undefined) throw this.#staleError(stale)
    return this.#gate.run(async () => {
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
          if (dropped !== undefined) return { copied, error: this.#staleError(dropped) }
          try {
            this.#slabs.read(this.#slots.slotOf(part.first), part.count, target)
          } catch (failure) {
            return { copied, error: this.#gone(failure, copied) }
          }
          copied += part.count
          this.#copiedPages += part.count
        }
      }
      return { copied }
    })
  }

  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    const count = countStartedCopy(first, span, done, this.#pageSizeBytes)
    const isAtHand = span.byteLength <= sliceBytes && this.#slots.isLive(first, count)
    if (!isAtHand || !this.#gate.isOpen) return false
    this.#slabs.readInto(span, this.#slots.slotOf(first))
    this.#copiedPages += count
    tellCopied(done, count)
    return true
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    const count = countHandles(handles)
    this.#gate.assertOpen()
    const stale = this.#slots.free(handles, (firstSlot, slotCount) => this.#slabs.free(firstSlot, slotCount))
    if (stale !== undefined) throw this.#staleError(stale)
    this.#droppedPages += count
  }

  async bytesAvailable(): Promise<number> {
    this.#gate.assertOpen()
    return this.#reservations.commonPages * this.#pageSizeBytes
  }

  async reserve(bytes: number): Promise<Reservation> {
    assertByteCount(bytes, 'bytes')
    this.#gate.assertOpen()
    return this.#reservations.reserve(bytes)
  }

  stats(): BackupStats {
    return {
      livePages: this.#backedUpPages - this.#droppedPages,
      backedUpPages: this.#backedUpPages,
      copiedPages: this.#copiedPages,
      droppedPages: this.#droppedPages,
      mediumBytes: this.#slabs.bytes,
      writebackErrors: 0,
      leakedPages: this.#leakedPages,
    }
  }

  close(): Promise<void> {
    return this.#gate.close(() => {
      this.#leakedPages = this.#slots.liveSlots
      this.#slabs.clear()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Fills the slots of a run in slices; says how many pages, and what failed; nothing when the signal stopped it. */
  async #store(
    run: HandleRun,
    source: SpanCursor,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly stored: number; readonly error?: unknown }> {
    const slot = this.#slots.slotOf(run.first)
    let stored = 0
    while (stored < run.count) {
      const count = Math.min(this.#slicePages, run.count - stored)
      const turn = pace(count * this.#pageSizeBytes)
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
    return { backup: this.name, page }
  }

  #staleError(handle: number): SpillwayError {
    return new SpillwayError('ESTALE', `handle ${handle} is not live in backup ${this.name}`, {
      backup: this.name,
      handle,
    })
  }
}
