import {
  assertBackupPagesOptions,
  assertByteCount,
  assertTransferOptions,
  type Backup,
  type BackupCapabilities,
  type BackupPagesOptions,
  type BackupResult,
  type BackupStats,
  CallGate,
  type CopyDone,
  type CopyResult,
  countCopy,
  countHandles,
  countPages,
  countStartedCopy,
  gatedImages,
  type HandleRun,
  type ImageStore,
  isFullError,
  type Reservation,
  SpillwayError,
  systemError,
  type TransferOptions,
  tellCopied,
  unclosedBackups,
} from '@spillway/core'
import type { EngineName } from './engine.ts'
import type { OpenImages } from './images/open-images.ts'
import type { PageMover } from './page-mover.ts'
import { type Piece, PiecePlan, type PlanLimits } from './piece-plan.ts'
import { carryPieces, type FlightLimits } from './pieces-in-flight.ts'
import type { SlotSpace } from './slot-space.ts'
import type { TakenSlots } from './slot-space-parts.ts'
import type { StartedRead, StartedReads } from './started-reads.ts'

/** The counters of every backup, and what a file adds. */
export interface FileBackupStats extends BackupStats {
  /** Which engine moves the bytes, and why that one. */
  readonly io: { readonly engine: EngineName; readonly reason: string }
  /** Whether pages bypass the page cache, and why. */
  readonly direct: { readonly used: boolean; readonly reason: string }
  /** Whether dropped pages give their space back, why not, and how much did. */
  readonly holes: { readonly used: boolean; readonly reason: string; readonly punchedBytes: number }
  /** Whether nothing of the file is left when the process ends, however that happens, and why. */
  readonly vanishes: { readonly always: boolean; readonly reason: string }
  /** Free space of the file system that is left alone. */
  readonly keepFreeBytes: number
  /** Bytes that travelled between the caller's memory and the file as they were, and through staging memory. */
  readonly directBytes: number
  readonly stagedBytes: number
  /** Memory held for staging. */
  readonly stagingBytes: number
  /** Pages read a second time because their checksum did not match. */
  readonly rereadPages: number
  /** Pages that did not match the second time either; their slots are not used again. */
  readonly quarantinedPages: number
  /** Of a persistent file. */
  readonly images?: FileImageStats | undefined
}

/** What is known of the images of a persistent file. */
export interface FileImageStats {
  readonly count: number
  /** Pages that only images name. */
  readonly onlyPages: number
  /** Whether a save was not finished when its process or machine ended: then the image before it is there. */
  readonly rootTorn: boolean
  /** Images of `count` that cannot be loaded, because their metadata is damaged; remove or replace them. */
  readonly damaged: number
  /** Space that is not used until then, because they may name it. */
  readonly withheldBytes: number
}

/** Pages in one file. Open it with `openFileBackup`. */
export interface FileBackup extends Backup {
  /** A snapshot of the counters. */
  stats(): FileBackupStats
}

export interface FileBackupParts {
  readonly name: string
  readonly capabilities: BackupCapabilities
  readonly plan: PlanLimits
  readonly flight: FlightLimits
  readonly space: SlotSpace
  readonly mover: PageMover
  readonly reads: StartedReads
  /** The figures that are not the backup's own. */
  readonly details: () => Pick<
    FileBackupStats,
    'io' | 'direct' | 'holes' | 'vanishes' | 'keepFreeBytes' | 'stagingBytes' | 'mediumBytes'
  >
  readonly sync: () => Promise<void>
  /** Of a persistent file. */
  readonly images: OpenImages | undefined
  readonly release: () => Promise<void>
}

/** The contract over slots, pieces and a mover; what it is assembled of is in `open-file-backup.ts`. */
export class SlottedFileBackup implements FileBackup {
  readonly name: string
  readonly capabilities: BackupCapabilities
  readonly images: ImageStore | undefined
  readonly #parts: FileBackupParts
  readonly #gate: CallGate
  readonly #watched: object
  #backedUpPages = 0
  #copiedPages = 0
  #droppedPages = 0
  #writebackErrors = 0
  #leakedPages = 0
  #atClose: FileBackupStats | undefined

  constructor(parts: FileBackupParts) {
    this.name = parts.name
    this.capabilities = parts.capabilities
    this.#parts = parts
    this.#gate = new CallGate(parts.name)
    this.#watched = unclosedBackups.watch(this, parts.name, closing(parts))
    this.images = parts.images && gatedImages(this.#gate, parts.images.table)
  }

  async backupPages(spans: readonly Uint8Array[], options: BackupPagesOptions = {}): Promise<BackupResult> {
    assertBackupPagesOptions(options)
    const pageCount = countPages(spans, this.capabilities.pageSizeBytes)
    const reserved = this.#reservedRuns(options.reservation)
    this.#gate.assertOpen()
    if (pageCount === 0) return { handles: [] }
    return this.#gate.run(() => this.#store(spans, pageCount, reserved, options))
  }

  async copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions = {},
  ): Promise<CopyResult> {
    assertTransferOptions(options)
    countCopy(handles, spans, this.capabilities.pageSizeBytes)
    this.#gate.assertOpen()
    this.#assertLive(handles)
    // Awaited here: a promise that is returned settles two steps later, and single pages are made of such steps.
    return await this.#gate.run(() => this.#copy(handles, spans, options))
  }

  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    const pageCount = countStartedCopy(first, span, done, this.capabilities.pageSizeBytes)
    const { space, reads, plan } = this.#parts
    const isOne = span.byteLength <= plan.requestBytes && space.isLive(first, pageCount)
    if (!isOne || !this.#gate.enter()) return false
    const began = reads.start({ handle: first, pageCount, memory: span, done, ended: this.#copyEnded })
    if (!began) this.#gate.leave()
    return began
  }

  /** A copy that `startCopy` began is over. One function for all: a closure for each would be much of what a page costs. */
  readonly #copyEnded = ({ done }: StartedRead, copied: number, error?: Error): void => {
    this.#copiedPages += copied
    tellCopied(done, copied, error)
    this.#gate.leave()
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    const count = countHandles(handles)
    await this.#gate.run(async () => {
      const stale = this.#drop(handles)
      if (stale !== undefined) throw this.#staleError(stale)
      this.#droppedPages += count
    })
  }

  async bytesAvailable(): Promise<number> {
    return this.#gate.run(() => this.#parts.space.bytesAvailable())
  }

  async reserve(bytes: number): Promise<Reservation> {
    assertByteCount(bytes, 'bytes')
    this.#gate.assertOpen()
    if (!this.capabilities.reserves) {
      throw new SpillwayError('ENOSYS', `backup ${this.name} cannot set space aside on this file system`, {
        backup: this.name,
      })
    }
    return this.#gate.run(async () => {
      try {
        const pages = Math.ceil(bytes / this.capabilities.pageSizeBytes)
        const runs = await this.#parts.space.reserve(pages)
        return new FileReservation(this.#parts.space, runs, this.capabilities.pageSizeBytes)
      } catch (failure) {
        throw systemError(failure, `${bytes} bytes cannot be reserved`, { backup: this.name })
      }
    })
  }

  stats(): FileBackupStats {
    if (this.#atClose !== undefined) return this.#atClose
    const { details, mover, space } = this.#parts
    return {
      livePages: this.#livePages,
      ...this.#imageFigures,
      backedUpPages: this.#backedUpPages,
      copiedPages: this.#copiedPages,
      droppedPages: this.#droppedPages,
      writebackErrors: this.#writebackErrors,
      leakedPages: this.#leakedPages,
      directBytes: mover.directBytes,
      stagedBytes: mover.stagedBytes,
      rereadPages: mover.rereadPages,
      quarantinedPages: space.quarantinedPages,
      ...details(),
    }
  }

  close(): Promise<void> {
    return this.#gate.close(async () => {
      unclosedBackups.unwatch(this.#watched)
      await this.#parts.space.close()
      this.#leakedPages = this.capabilities.persistent ? 0 : this.#livePages
      this.#atClose = { ...this.stats(), mediumBytes: 0, stagingBytes: 0 }
      await this.#parts.release()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #store(
    spans: readonly Uint8Array[],
    pageCount: number,
    reserved: HandleRun[] | undefined,
    options: BackupPagesOptions,
  ): Promise<BackupResult> {
    const { space, sync } = this.#parts
    let { handles, pages, error } = await this.#write(
      spans,
      await space.take(pageCount, { reserved }),
      options,
    )
    if (isFullError(error)) {
      // The file system refused what it seemed to have; slots that were dropped still have their space.
      const warm = await space.takeWarm(pageCount - pages)
      if (warm.pages > 0) {
        const rest = await this.#write(
          spansFrom(spans, pages * this.capabilities.pageSizeBytes),
          warm,
          options,
        )
        handles = [...handles, ...rest.handles]
        pages += rest.pages
        error = pages === pageCount ? undefined : (rest.error ?? error)
      }
    }
    this.#backedUpPages += pages
    if (options.writeback === true && pages > 0) {
      // Best effort: the pages can be read whether or not they reached stable storage (T7).
      await sync().catch(() => this.#writebackErrors++)
    }
    return error === undefined ? { handles } : { handles, error }
  }

  /** Writes the first pages of the spans to slots that were taken for them. */
  async #write(
    spans: readonly Uint8Array[],
    taken: TakenSlots,
    options: BackupPagesOptions,
  ): Promise<{ handles: HandleRun[]; pages: number; error: Error | undefined }> {
    const { space, mover, plan: limits, flight } = this.#parts
    const plan = new PiecePlan(limits, taken.runs, spans)
    const { pages, error = taken.error } = await carryPieces(plan, flight, options.signal, (piece) =>
      mover.write(piece, options.retryMayFail === true),
    )
    const handles = space.publish(taken, pages, error)
    this.#parts.images?.holds.hold(handles)
    return { handles, pages, error }
  }

  async #copy(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<CopyResult> {
    const { mover, plan, flight } = this.#parts
    const retryMayFail = options.retryMayFail === true
    const single = options.signal?.aborted === true ? undefined : this.#singlePiece(handles, spans)
    const { pages, error } = await (single !== undefined
      ? mover.read(single, retryMayFail)
      : carryPieces(new PiecePlan(plan, handles, spans), flight, options.signal, (piece) =>
          mover.read(piece, retryMayFail),
        ))
    this.#copiedPages += pages
    return error === undefined ? { copied: pages } : { copied: pages, error }
  }

  /** A call that is one request needs no plan: most restores of single pages are. */
  #singlePiece(handles: readonly HandleRun[], spans: readonly Uint8Array[]): Piece | undefined {
    if (handles.length !== 1 || spans.length !== 1) return undefined
    const { requestBytes, takes } = this.#parts.plan
    const [parts, { first, count }] = [spans, handles[0]]
    if (parts[0].byteLength > requestBytes || !takes(parts[0])) return undefined
    return { page: 0, pageCount: count, handle: first, parts, staged: false }
  }

  get #livePages(): number {
    const { images, space } = this.#parts
    return images === undefined ? this.#backedUpPages - this.#droppedPages : space.pageSlots
  }

  get #imageFigures(): Pick<FileBackupStats, 'images'> {
    const { images, space } = this.#parts
    if (images === undefined) return {}
    const { table, holds, rootTorn, damagedImages } = images
    const withheldBytes = space.found.withheldSlots * this.capabilities.pageSizeBytes
    const onlyPages = holds.pagesOnlyOfImages
    return { images: { count: table.count, onlyPages, rootTorn, damaged: damagedImages, withheldBytes } }
  }

  /** Returns one hold of each page, or none and the first handle that has none. */
  #drop(handles: readonly HandleRun[]): number | undefined {
    const { space, images } = this.#parts
    if (images === undefined) return space.drop(handles)
    const notLive = space.firstNotLive(handles)
    if (notLive !== undefined) return notLive
    const { released, stale } = images.holds.drop(handles)
    return stale ?? space.drop(released)
  }

  #reservedRuns(reservation: Reservation | undefined): HandleRun[] | undefined {
    if (reservation === undefined) return undefined
    if (reservation instanceof FileReservation && reservation.space === this.#parts.space)
      return reservation.runs
    throw new TypeError(`the reservation was not made by backup ${this.name}`)
  }

  #assertLive(handles: readonly HandleRun[]): void {
    const stale = this.#parts.space.firstNotLive(handles)
    if (stale !== undefined) throw this.#staleError(stale)
  }

  #staleError(handle: number): SpillwayError {
    return new SpillwayError('ESTALE', `handle ${handle} is not live in backup ${this.name}`, {
      backup: this.name,
      handle,
    })
  }
}

/** Slots that are allocated in the file and held for one caller. */
class FileReservation implements Reservation {
  readonly space: SlotSpace
  readonly runs: HandleRun[]
  readonly #pageSizeBytes: number

  constructor(space: SlotSpace, runs: HandleRun[], pageSizeBytes: number) {
    this.space = space
    this.runs = runs
    this.#pageSizeBytes = pageSizeBytes
  }

  get bytes(): number {
    return this.runs.reduce((pages, run) => pages + run.count, 0) * this.#pageSizeBytes
  }

  async release(): Promise<void> {
    this.space.release(this.runs)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }
}

/** The spans without their first bytes. */
function spansFrom(spans: readonly Uint8Array[], bytes: number): Uint8Array[] {
  const rest: Uint8Array[] = []
  let left = bytes
  for (const span of spans) {
    if (left < span.byteLength) rest.push(left === 0 ? span : span.subarray(left))
    left = Math.max(0, left - span.byteLength)
  }
  return rest
}

/** Closes the file. Made here, where no backup is in sight that the function could keep from being collected. */
function closing({ space, release }: FileBackupParts): () => void {
  return () =>
    void space
      .close()
      .then(release)
      .catch(() => {})
}
