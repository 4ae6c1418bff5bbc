import {
  assertBackupPagesOptions,
  assertByteCount,
  assertTransferOptions,
  type Backup,
  type BackupCapabilities,
  type BackupPagesOptions,
  type BackupResult,
  CallGate,
  type CopyResult,
  countCopy,
  countHandles,
  countPages,
  type HandleRun,
  nowMs,
  type Reservation,
  SpillwayError,
  type TransferOptions,
} from '@spillway/core'
import { CostLedger } from './cost/ledger.ts'
import { KeySpace } from './keys.ts'
import {
  type RequestBudget,
  resolveBudget,
  resolveOptions,
  type S3BackupOptions,
  type Settings,
} from './options.ts'
import { Deletions, deleteAll } from './ownership/deletions.ts'
import { ManifestKeeper } from './ownership/manifest-keeper.ts'
import { type Opened, openEpoch, openingError } from './ownership/opening.ts'
import type { Owner } from './ownership/owner.ts'
import { type SweepOptions, type SweepReport, sweep } from './ownership/sweep.ts'
import { FooterLoads } from './restore/footer-loads.ts'
import { Restores } from './restore/restores.ts'
import { ZeroAdvance } from './segments/checksum.ts'
import { Compactor } from './segments/compaction.ts'
import { maxFooterBytes } from './segments/segment-format.ts'
import { SegmentSlots } from './segments/segment-slots.ts'
import { SegmentTable } from './segments/segment-table.ts'
import { SegmentWriter } from './segments/segment-writer.ts'
import { S3Service } from './service/service.ts'
import { collectStats, type S3BackupStats } from './stats.ts'

/** How long a service that said it is full is believed. */
const fullForMs = 5_000

/**
 * Pages in an S3-compatible object store.
 *
 *   backupPages ─▶ SegmentWriter ─▶ one object per segment          copyPages ─▶ Restores ─▶ ranged GETs
 *   drop ─▶ SegmentTable ─▶ Deletions, Compactor                    Owner: who owns what was written
 */
export class S3Backup implements Backup {
  readonly name: string
  readonly capabilities: BackupCapabilities
  readonly #settings: Settings
  readonly #keys: KeySpace
  readonly #ledger: CostLedger
  readonly #service: S3Service
  readonly #table: SegmentTable
  readonly #deletions: Deletions
  readonly #slots: SegmentSlots
  readonly #owner: Owner
  readonly #writer: SegmentWriter
  readonly #restores: Restores
  readonly #compactor: Compactor
  readonly #manifests: ManifestKeeper | undefined
  readonly #gate: CallGate
  #copiedPages = 0
  #droppedPages = 0
  #leakedPages = 0

  /**
   * Opens a store, and tries what it will need.
   * @throws `TypeError`, `RangeError` for bad options; `SpillwayError` with `ENOENT` (no such bucket), `EACCES`
   *   (credentials, permission to write, read or delete), `EINVAL` (region, clocks, not S3, other page size), `EBUSY`
   *   (a persistent store that someone else owns), `ENOSYS` (no conditional writes), `ENOTSUP` (a store of another
   *   version), `ETIMEDOUT` and `EIO` (unreachable: within seconds when there is no connection to be had), `EINTR`
   *   (`signal` aborted)
   */
  static async open(options: S3BackupOptions): Promise<S3Backup> {
    const settings = resolveOptions(options)
    const keys = new KeySpace(settings.prefix)
    const ledger = new CostLedger(settings.prices, settings.budget, settings.name)
    const service = new S3Service(settings, ledger)
    const deletions = new Deletions(settings, service)
    const remove = (key: string, bytes: number) => deletions.add(key, bytes)
    const table = new SegmentTable(({ epoch, number, bytes }) => {
      deletions.add(keys.segment(epoch, number), bytes)
    })
    const { signal } = options
    try {
      signal?.throwIfAborted()
      const opened = await openEpoch({ settings, service, keys, table, remove, signal })
      const backup = new S3Backup({ settings, keys, ledger, service, deletions, table, opened })
      // Pages are acknowledged once the head names a manifest of this epoch: who comes next reads on from that one.
      await backup.#manifests?.write(signal).catch(async (error) => {
        await backup.#manifests?.giveUp(signal).catch(() => {})
        throw error
      })
      return backup
    } catch (error) {
      throw await openingError(error, settings, service, signal)
    }
  }

  /** Sweeps without opening a store: removes what owners that are gone left under the prefix. */
  static async sweepOrphans(options: S3BackupOptions & SweepOptions): Promise<SweepReport> {
    const { persistent, signal, ...rest } = options
    const backup = await S3Backup.open({ ...rest, ...(signal ? { signal } : {}), persistent: false })
    let report: SweepReport
    try {
      report = await backup.sweepOrphans({
        ...(persistent ? { persistent } : {}),
        ...(signal ? { signal } : {}),
      })
    } catch (error) {
      // That the sweeper's own lease could not be removed either says less.
      await backup.close().catch(() => {})
      throw error
    }
    await backup.close()
    return report
  }

  private constructor(parts: {
    settings: Settings
    keys: KeySpace
    ledger: CostLedger
    service: S3Service
    deletions: Deletions
    table: SegmentTable
    opened: Opened
  }) {
    const { settings, keys, ledger, service, table } = parts
    const { pageSizeBytes, pagesPerSegment, segmentBytes, bufferBytes } = settings
    this.name = settings.name
    this.#settings = settings
    this.#keys = keys
    this.#ledger = ledger
    this.#service = service
    this.#table = table
    this.#deletions = parts.deletions
    const { owner, store } = parts.opened
    this.#owner = owner
    parts.deletions.guard = () => owner.assertOwned()
    parts.deletions.isLost = () => owner.isLost
    this.#gate = new CallGate(settings.name)
    const slots = new SegmentSlots(
      Math.max(2, Math.floor(bufferBytes / segmentBytes)),
      segmentBytes + maxFooterBytes(pagesPerSegment),
    )
    this.#slots = slots
    const footers = new FooterLoads(service, keys)
    this.#restores = new Restores(settings, service, table, keys, ledger, (object) => footers.load(object))
    const shared = { ...parts, slots, zeros: ZeroAdvance.of(pageSizeBytes), owner }
    this.#writer = new SegmentWriter({ ...shared, onSegment: () => this.#manifests?.segmentWritten() })
    this.#compactor = new Compactor({ ...shared, restores: this.#restores })
    this.#manifests = store && new ManifestKeeper({ ...parts, ...store })
    this.capabilities = Object.freeze({
      pageSizeBytes,
      medium: 's3',
      preferredBatchPages: pagesPerSegment,
      preferredCallsInFlight: slots.count,
      persistent: settings.persistent,
      shareable: false,
      reserves: false,
      detectsCorruption: true,
      stores: true,
    })
  }

  async backupPages(spans: readonly Uint8Array[], options: BackupPagesOptions = {}): Promise<BackupResult> {
    assertBackupPagesOptions(options)
    if (options.reservation !== undefined) {
      throw new TypeError('reservation is of another backup; this one gives out none')
    }
    const pages = countPages(spans, this.#settings.pageSizeBytes)
    return this.#gate.run(async () => {
      if (pages === 0) return { handles: [] }
      return this.#writer.write(spans, pages, options)
    })
  }

  copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions = {},
  ): Promise<CopyResult> {
    // What is thrown in here rejects.
    return new Promise((resolve) => {
      assertTransferOptions(options)
      countCopy(handles, spans, this.#settings.pageSizeBytes)
      this.#gate.assertOpen()
      this.#assertLive(this.#table.firstNotLive(handles))
      this.#gate.enter()
      this.#restores.copy(handles, spans, options, (result) => {
        this.#copiedPages += result.copied
        this.#gate.leave()
        resolve(result)
      })
    })
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    const count = countHandles(handles)
    this.#gate.assertOpen()
    this.#assertLive(this.#table.drop(handles))
    this.#droppedPages += count
    this.#compactor.poke()
  }

  /**
   * Drops every page but these and those of calls that are under way, or ended in this turn of the event loop: what an
   * attaching process does with the handles it knows. Returns how many went.
   */
  async retainOnly(handles: readonly HandleRun[]): Promise<number> {
    countHandles(handles)
    this.#gate.assertOpen()
    this.#assertLive(this.#table.firstNotLive(handles))
    const unwanted = this.#table.allBut([...handles, ...this.#writer.unsettledRuns()])
    this.#table.drop(unwanted)
    const count = unwanted.reduce((sum, run) => sum + run.count, 0)
    this.#droppedPages += count
    this.#compactor.poke()
    return count
  }

  /** All live handles: after attaching, what there is. */
  liveHandles(): HandleRun[] {
    return this.#table.allBut([])
  }

  async bytesAvailable(): Promise<number> {
    this.#gate.assertOpen()
    const { pageSizeBytes, segmentBytes } = this.#settings
    if (this.#owner.isLost || nowMs() - this.#writer.fullAt < fullForMs) return 0
    const byBudget = this.#ledger.putsLeft(segmentBytes) * segmentBytes
    return Math.min(this.#writer.freePages * pageSizeBytes, byBudget, Number.MAX_SAFE_INTEGER)
  }

  /** Rejects with `ENOSYS`: no S3 service sets space aside. */
  async reserve(bytes: number): Promise<Reservation> {
    assertByteCount(bytes, 'bytes')
    this.#gate.assertOpen()
    throw new SpillwayError('ENOSYS', 'object stores cannot promise space', { backup: this.name })
  }

  /** Sets another budget from now on; what was spent already counts. */
  setBudget(budget: RequestBudget): void {
    this.#ledger.setBudget(resolveBudget(budget))
  }

  /** Removes what dead owners left under the prefix, and never what a live one owns. */
  async sweepOrphans(options: SweepOptions = {}): Promise<SweepReport> {
    const parts = { settings: this.#settings, service: this.#service, keys: this.#keys }
    return this.#gate.run(() => sweep(this.#owner.epoch, parts, options))
  }

  stats(): S3BackupStats {
    return collectStats({
      settings: this.#settings,
      ledger: this.#ledger,
      service: this.#service,
      table: this.#table,
      deletions: this.#deletions,
      slots: this.#slots,
      owner: this.#owner,
      writer: this.#writer,
      restores: this.#restores,
      compactor: this.#compactor,
      manifests: this.#manifests,
      copiedPages: this.#copiedPages,
      droppedPages: this.#droppedPages,
      leakedPages: this.#leakedPages,
    })
  }

  /**
   * Waits for what is in flight, then deletes every object of this instance, the lease last. A persistent store keeps
   * its pages and is free for the next owner.
   * @throws what the service said when something could not be deleted; `sweepOrphans()` finds it later
   */
  close(): Promise<void> {
    return this.#gate.close(() => this.#finish())
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #finish(): Promise<void> {
    await this.#writer.settle()
    await this.#compactor.close()
    this.#slots.trim()
    try {
      if (this.#manifests !== undefined) {
        if (!this.#owner.isLost) await this.#manifests.close()
      } else {
        this.#leakedPages = this.#table.livePages
        for (const { epoch, number } of this.#table.objects)
          this.#deletions.add(this.#keys.segment(epoch, number))
      }
      await this.#deletions.drain()
      if (!this.#owner.isLost) await this.#removeLatecomers()
    } catch (error) {
      this.#deletions.stop()
      // A scratch store that is not empty is left to a sweep; what a persistent store holds too much, to its next owner.
      if (this.#manifests === undefined) this.#owner.abandon()
      else await this.#owner.release().catch(() => {})
      throw error
    }
    await this.#owner.release()
  }

  /** An upload that was given up may have arrived after its object was deleted. */
  async #removeLatecomers(): Promise<void> {
    if (this.#deletions.uncertainKeys.size === 0) return
    const found: string[] = []
    for await (const { key } of this.#service.list(this.#keys.epochPrefix(this.#owner.epoch))) {
      if (this.#deletions.uncertainKeys.has(key)) found.push(key)
    }
    if (found.length > 0) await deleteAll(this.#service, found)
  }

  #assertLive(notLive: number | undefined): void {
    if (notLive === undefined) return
    throw new SpillwayError('ESTALE', `handle ${notLive} is not live: dropped, or of another backup`, {
      backup: this.name,
      handle: notLive,
    })
  }
}
