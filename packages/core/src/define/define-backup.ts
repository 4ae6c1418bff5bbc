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
import { SpillwayError, staleHandleError, systemError } from '../errors.ts'
import { gatedImages } from '../images/gated-images.ts'
import { sliceBytes } from '../pace.ts'
import {
  assertBackupPagesOptions,
  assertByteCount,
  assertPageSize,
  assertTransferOptions,
  countCopy,
  countHandles,
  countPages,
  countStartedCopy,
} from '../validation.ts'
import type { BackupDefinition, NumberedPages, PlacedPages } from './definition.ts'
import { NumberedHandles } from './numbered-handles.ts'
import { type Start, StartedCopy } from './started-copy.ts'

/**
 * Makes a whole `Backup` of the few functions that move a backend's pages. It checks arguments, refuses calls once closed and
 * handles that are not live, cuts long calls into slices with turns of the event loop between, keeps the counters, makes
 * reservations, and waits in `close()` for what is under way. Throws `TypeError` or `RangeError` for a definition that cannot be.
 */
export function defineBackup<Figures extends object = object>(
  definition: BackupDefinition<Figures>,
): Backup & { stats(): BackupStats & Figures } {
  const { name, pageSizeBytes, medium, numbered, placed } = definition
  if (typeof name !== 'string' || typeof medium !== 'string') {
    throw new TypeError('defineBackup needs a name and a medium, both strings')
  }
  assertPageSize(pageSizeBytes)
  if ((numbered === undefined) === (placed === undefined)) {
    throw new TypeError(`backup ${name} needs one of numbered and placed: who makes its handles?`)
  }
  if (placed !== undefined) return new DefinedBackup(definition, placed)
  if (numbered === undefined) throw new TypeError('unreachable')
  assertNumbered(name, numbered)
  return new DefinedBackup(definition, new NumberedHandles(name, pageSizeBytes, numbered))
}

function assertNumbered(name: string, numbered: NumberedPages): void {
  const { capacityBytes, bytesAvailable, reserve, copy, copyRuns } = numbered
  if ((copy === undefined) === (copyRuns === undefined)) {
    throw new TypeError(`backup ${name} needs one of copy and copyRuns`)
  }
  if (capacityBytes !== undefined) {
    assertByteCount(capacityBytes, 'capacityBytes')
    if (reserve === undefined) return
    throw new TypeError(`backup ${name} has capacityBytes, from which its reservations follow, and reserve`)
  }
  if (bytesAvailable === undefined)
    throw new TypeError(`backup ${name} needs capacityBytes or bytesAvailable`)
}

class DefinedBackup<Figures extends object> implements Backup {
  readonly name: string
  readonly capabilities: BackupCapabilities
  /** There where the definition has it. */
  readonly startCopy?: Start
  readonly images?: ImageStore
  readonly #definition: BackupDefinition<Figures>
  readonly #pages: PlacedPages
  readonly #gate: CallGate
  #backedUpPages = 0
  #copiedPages = 0
  #droppedPages = 0
  #leakedPages = 0
  #atClose: (BackupStats & Figures) | undefined

  constructor(definition: BackupDefinition<Figures>, pages: PlacedPages) {
    const { name, pageSizeBytes, medium } = definition
    this.name = name
    this.#definition = definition
    this.#pages = pages
    this.#gate = new CallGate(name)
    this.capabilities = Object.freeze({
      pageSizeBytes,
      medium,
      preferredBatchPages: definition.preferredBatchPages ?? Math.max(1, batchBytes / pageSizeBytes),
      preferredCallsInFlight: definition.preferredCallsInFlight ?? 1,
      persistent: definition.persistent ?? false,
      shareable: definition.shareable ?? false,
      reserves: pages.reserve !== undefined,
      detectsCorruption: definition.detectsCorruption ?? false,
      stores: definition.stores ?? true,
    })
    const { images, startCopy } = definition
    if (images !== undefined) this.images = gatedImages(this.#gate, images)
    if (startCopy === undefined) return
    this.startCopy = (first, span, done) => this.#startCopy(startCopy, first, span, done)
  }

  async backupPages(spans: readonly Uint8Array[], options: BackupPagesOptions = {}): Promise<BackupResult> {
    assertBackupPagesOptions(options)
    const pageCount = countPages(spans, this.capabilities.pageSizeBytes)
    this.#assertOwn(options.reservation)
    // Awaited here: a promise that is returned settles two steps later.
    return await this.#gate.run(async () => {
      if (pageCount === 0) return { handles: [] }
      const result = await this.#pages.store(spans, pageCount, options)
      for (const { count } of result.handles) this.#backedUpPages += count
      return result
    })
  }

  async copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions = {},
  ): Promise<CopyResult> {
    assertTransferOptions(options)
    countCopy(handles, spans, this.capabilities.pageSizeBytes)
    return await this.#gate.run(async () => {
      const answer = this.#pages.firstNotLive(handles)
      const stale = typeof answer === 'object' ? await answer : answer
      if (stale !== undefined) throw staleHandleError(this.name, stale)
      const result = await this.#pages.copy(handles, spans, options)
      this.#copiedPages += result.copied
      return result
    })
  }

  #startCopy(start: Start, first: number, span: Uint8Array, done: CopyDone): boolean {
    const { pageSizeBytes } = this.capabilities
    const count = countStartedCopy(first, span, done, pageSizeBytes)
    const isLive = this.#pages.firstNotLive([{ first, count }]) === undefined
    if (span.byteLength > sliceBytes || !isLive || !this.#gate.enter()) return false
    const parts = { backup: this.name, pageSizeBytes, pages: this.#pages, first, span }
    const copy = new StartedCopy(parts, (copied, error) => {
      this.#copiedPages += copied
      tellCopied(done, copied, error)
      this.#gate.leave()
    })
    const began = copy.begin(start)
    if (!began) this.#gate.leave()
    return began
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    const count = countHandles(handles)
    await this.#gate.run(async () => {
      const stale = await this.#pages.drop(handles)
      if (stale !== undefined) throw staleHandleError(this.name, stale)
      this.#droppedPages += count
    })
  }

  async bytesAvailable(): Promise<number> {
    return await this.#gate.run(async () => this.#pages.bytesAvailable())
  }

  async reserve(bytes: number): Promise<Reservation> {
    assertByteCount(bytes, 'bytes')
    return await this.#gate.run(async () => {
      if (this.#pages.reserve === undefined) {
        throw new SpillwayError('ENOSYS', `backup ${this.name} cannot set space aside`, { backup: this.name })
      }
      try {
        return await this.#pages.reserve(bytes)
      } catch (failure) {
        throw systemError(failure, `${bytes} bytes cannot be reserved`, { backup: this.name })
      }
    })
  }

  stats(): BackupStats & Figures {
    if (this.#atClose !== undefined) return this.#atClose
    const livePages = this.#backedUpPages - this.#droppedPages
    const mediumBytes = this.#definition.mediumBytes?.() ?? livePages * this.capabilities.pageSizeBytes
    return {
      livePages,
      backedUpPages: this.#backedUpPages,
      copiedPages: this.#copiedPages,
      droppedPages: this.#droppedPages,
      mediumBytes,
      writebackErrors: 0,
      leakedPages: this.#leakedPages,
      ...(this.#definition.figures?.() as Figures),
    }
  }

  close(): Promise<void> {
    return this.#gate.close(async () => {
      if (!this.capabilities.persistent) this.#leakedPages = this.stats().livePages
      this.#atClose = { ...this.stats(), mediumBytes: 0 }
      await this.#definition.release?.()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #assertOwn(reservation: Reservation | undefined): void {
    if (reservation === undefined || this.#pages.isOwnReservation?.(reservation)) return
    throw new TypeError(`the reservation was not made by backup ${this.name}`)
  }
}

const batchBytes = 2 * 2 ** 20
