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
import { sliceBytes } from '../pace.ts'
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
import { HandleSet } from './handle-set.ts'
import { Reservations } from './reservations.ts'

export interface NullBackupOptions {
  /** Size of every page in bytes: a power of two from 4 KiB to 2 MiB. @default 4096 */
  readonly pageSizeBytes?: number | undefined
  /** Most bytes it pretends to hold. @default 1 PiB */
  readonly capacityBytes?: number | undefined
  /** Names it in errors and statistics. @default 'null' */
  readonly name?: string | undefined
}

/**
 * Keeps nothing: `copyPages` leaves the memory as it is. For measuring what a pool costs by itself. Handles are live
 * until they are dropped, as everywhere, so that a pool's mistakes show; they cost at most a bit per page.
 */
export function nullBackup(options: NullBackupOptions = {}): Backup {
  assertKnownOptions(options, ['pageSizeBytes', 'capacityBytes', 'name'], 'nullBackup')
  const { pageSizeBytes = 4096, capacityBytes = 2 ** 50, name = 'null' } = options
  assertPageSize(pageSizeBytes)
  assertByteCount(capacityBytes, 'capacityBytes')
  return new NullBackup(name, pageSizeBytes, Math.floor(capacityBytes / pageSizeBytes))
}

class NullBackup implements Backup {
  readonly name: string
  readonly capabilities: BackupCapabilities
  readonly #live: HandleSet
  readonly #reservations: Reservations
  readonly #gate: CallGate
  readonly #pageSizeBytes: number
  readonly #capacityPages: number
  // Handles are never used twice, and start at random so that those of another instance are not taken for its own.
  #nextHandle = 1 + Math.floor(Math.random() * 2 ** 51)
  #backedUpPages = 0
  #copiedPages = 0
  #droppedPages = 0
  #leakedPages = 0

  constructor(name: string, pageSizeBytes: number, capacityPages: number) {
    this.name = name
    this.#live = new HandleSet(this.#nextHandle)
    this.#pageSizeBytes = pageSizeBytes
    this.#capacityPages = capacityPages
    this.#reservations = new Reservations(name, pageSizeBytes, () => capacityPages - this.#livePages)
    this.#gate = new CallGate(name)
    this.capabilities = Object.freeze({
      pageSizeBytes,
      medium: 'null',
      preferredBatchPages: Math.max(1, (2 * 2 ** 20) / pageSizeBytes),
      preferredCallsInFlight: 1,
      persistent: false,
      shareable: false,
      reserves: true,
      detectsCorruption: false,
      stores: false,
    })
  }

  async backupPages(spans: readonly Uint8Array[], options: BackupPagesOptions = {}): Promise<BackupResult> {
    assertBackupPagesOptions(options)
    const pageCount = countPages(spans, this.#pageSizeBytes)
    const reservation = this.#reservations.own(options.reservation)
    this.#gate.assertOpen()
    if (options.signal?.aborted) return { handles: [], error: abortError(options.signal, this.#at(0)) }
    const count = Math.min(pageCount, this.#reservations.allowance(reservation))
    const handles: HandleRun[] = []
    if (count > 0) {
      this.#reservations.consume(reservation, count)
      handles.push({ first: this.#nextHandle, count })
      this.#live.add(this.#nextHandle, count)
      this.#nextHandle += count
      this.#backedUpPages += count
    }
    if (count === pageCount) return { handles }
    const full = `backup ${this.name} is full: ${this.#capacityPages} pages`
    return { handles, error: new SpillwayError('ENOSPC', full, this.#at(count)) }
  }

  async copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions = {},
  ): Promise<CopyResult> {
    assertTransferOptions(options)
    const pageCount = countCopy(handles, spans, this.#pageSizeBytes)
    this.#gate.assertOpen()
    for (const run of handles) this.#assertLive(run)
    if (options.signal?.aborted) return { copied: 0, error: abortError(options.signal, this.#at(0)) }
    this.#copiedPages += pageCount
    return { copied: pageCount }
  }

  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    const count = countStartedCopy(first, span, done, this.#pageSizeBytes)
    const isLive = this.#live.firstMissing(first, count) === undefined
    if (span.byteLength > sliceBytes || !isLive || !this.#gate.isOpen) return false
    this.#copiedPages += count
    tellCopied(done, count)
    return true
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    countHandles(handles)
    this.#gate.assertOpen()
    for (let index = 0; index < handles.length; index++) {
      const run = handles[index]
      const stale = this.#live.firstMissing(run.first, run.count)
      if (stale !== undefined) {
        // All or none: what this call has dropped so far is live again.
        for (const { first, count } of handles.slice(0, index)) this.#live.add(first, count)
        throw this.#staleError(stale)
      }
      this.#live.delete(run.first, run.count)
    }
    for (const { count } of handles) this.#droppedPages += count
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
      livePages: this.#livePages,
      backedUpPages: this.#backedUpPages,
      copiedPages: this.#copiedPages,
      droppedPages: this.#droppedPages,
      mediumBytes: 0,
      writebackErrors: 0,
      leakedPages: this.#leakedPages,
    }
  }

  close(): Promise<void> {
    return this.#gate.close(() => {
      this.#leakedPages = this.#livePages
      this.#live.clear()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  get #livePages(): number {
    return this.#backedUpPages - this.#droppedPages
  }

  #assertLive(run: HandleRun): void {
    const stale = this.#live.firstMissing(run.first, run.count)
    if (stale !== undefined) throw this.#staleError(stale)
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
