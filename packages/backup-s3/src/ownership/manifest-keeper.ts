import { randomBytes } from 'node:crypto'
import { type HostTimer, orAbort, startTimer, stopTimer } from '@spillway/core'
import { longestTimerMs } from '../http/deadlines.ts'
import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { SegmentTable } from '../segments/segment-table.ts'
import type { S3Service } from '../service/service.ts'
import type { Attached } from './attach.ts'
import type { Deletions } from './deletions.ts'
import { encodeManifest } from './manifest.ts'
import { hurryMs } from './owner.ts'
import type { StoreOwner } from './store-owner.ts'

/** So many new or dropped segments are worth a manifest, at least. */
const segmentsPerManifest = 64
/**
 * So many are in any case, and a sixty-fourth of what there is: the next owner reads the footer of each that the manifest
 * does not know. A manifest has a few hundred bytes for each segment, so with segments of megabytes it is less than a
 * hundredth of what was written since the one before.
 */
const mostSegmentsPerManifest = 256
const segmentsOfLargeStore = 64
/** How long dropped segments wait for a manifest, for each that the store has: the larger it is, the rarer. */
const waitMsPerSegment = 1

export interface ManifestParts {
  readonly settings: Settings
  readonly service: S3Service
  readonly keys: KeySpace
  readonly table: SegmentTable
  readonly owner: StoreOwner
  readonly deletions: Deletions
  readonly attached: Attached
}

/**
 * Writes manifests of a persistent store, each under a name of its own, and has the head name them.
 *
 *   64 segments written or dropped, or dropped ones waited ─▶ manifest written ─▶ head names it ─▶ dropped ones deleted
 *
 * The last two are kept.
 */
export class ManifestKeeper {
  lastError: Error | undefined
  readonly #parts: ManifestParts
  #sequence = 0
  #segmentsSince = 0
  #timer: HostTimer | undefined
  /** The last that the head named, as far as is known, without the prefix. */
  #current: string | null
  #parent: string | null = null
  /** Of which it is not known whether the head ever named them. */
  #unnamed: string[] = []
  #writing: Promise<void> | undefined
  #isClosing = false

  constructor(parts: ManifestParts) {
    this.#parts = parts
    this.#current = parts.attached.manifest
    this.lastError = parts.attached.error
    parts.deletions.onHeld = () => this.#garbageAdded()
  }

  segmentWritten(): void {
    this.#segmentsSince++
    if (this.#segmentsSince >= this.#due) this.#begin()
  }

  /** Writes the table as it is now. */
  async write(signal?: AbortSignal): Promise<void> {
    const { owner, table, settings, service, keys, deletions, attached } = this.#parts
    this.#segmentsSince = 0
    await owner.assertOwned(signal)
    const held = deletions.takeHeld()
    const name = keys.manifestName(owner.epoch, ++this.#sequence)
    this.#unnamed.push(name)
    try {
      const { epoch, underway, nextSegmentNumber: nextNumber } = owner
      const { pageSizeBytes } = settings
      const { damaged } = attached
      const about = { epoch, pageSizeBytes, nextNumber, underway: [...underway], damaged }
      const { body, ...sums } = await encodeManifest(table, about)
      const identity = randomBytes(12).toString('hex')
      await service.upload(`${keys.prefix}${name}`, body, { ...sums, identity, free: true, signal })
      await orAbort(owner.publish(name, this.#current), signal)
    } catch (error) {
      deletions.hold(held)
      throw error
    }
    deletions.release(held)
    const old = [this.#parent, ...this.#unnamed].filter((key) => key !== null && key !== name)
    this.#parent = this.#current
    this.#current = name
    this.#unnamed = []
    for (const key of old) deletions.addUnnamed(`${keys.prefix}${key}`)
  }

  async close(): Promise<void> {
    this.#isClosing = true
    stopTimer(this.#timer)
    await this.#writing
    await this.write()
  }

  /**
   * Ends what was never opened: gives the store back, and removes manifests that the head does not name. Not for longer than
   * `hurryMs` for either once `signal` is aborted.
   */
  async giveUp(signal: AbortSignal | undefined): Promise<void> {
    const { owner, service, keys } = this.#parts
    this.#isClosing = true
    stopTimer(this.#timer)
    await owner.giveUp(signal)
    if (owner.isLost) return
    const { manifest, parent } = owner.head
    const unnamed = this.#unnamed.filter((name) => name !== manifest && name !== parent)
    const hurry = signal?.aborted ? AbortSignal.timeout(hurryMs) : signal
    if (unnamed.length > 0) {
      const names = unnamed.map((name) => `${keys.prefix}${name}`)
      await service.deleteMany(names, { signal: hurry, urgent: true })
    }
  }

  get #due(): number {
    const segments = this.#parts.table.objects.size
    const usual = Math.max(segmentsPerManifest, Math.min(segments / 4, mostSegmentsPerManifest))
    return Math.max(usual, segments / segmentsOfLargeStore)
  }

  #garbageAdded(): void {
    if (this.#parts.deletions.heldObjects >= this.#due) this.#begin()
    else this.#beginLater()
  }

  #beginLater(): void {
    if (this.#timer !== undefined || this.#isClosing) return
    const { settings, table } = this.#parts
    const waitMs = settings.deleteDelayMs + table.objects.size * waitMsPerSegment
    this.#timer = startTimer(() => this.#begin(), Math.min(waitMs, longestTimerMs))
    this.#timer.unref?.()
  }

  #begin(): void {
    stopTimer(this.#timer)
    this.#timer = undefined
    if (this.#writing !== undefined || this.#isClosing || this.#parts.owner.isLost) return
    // A failure costs nothing: what is not in a manifest is found by listing.
    this.#writing = this.write()
      .catch((error: Error) => {
        this.lastError = error
      })
      .finally(() => {
        this.#writing = undefined
        if (this.#parts.deletions.heldObjects > 0) this.#beginLater()
      })
  }
}
