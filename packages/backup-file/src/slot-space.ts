import {
  BitSet,
  type HandleRun,
  isFullError,
  SlotAllocator,
  SpillwayError,
  systemError,
} from '@spillway/core'
import { FoundSlots } from './found-slots.ts'
import { freshUnits } from './fresh-units.ts'
import { HolePuncher } from './hole-puncher.ts'
import { inTurn } from './in-turn.ts'
import { LongWarmRuns } from './long-warm-runs.ts'
import { MetadataSlots } from './metadata-slots.ts'
import type { SlotSpaceParts, TakenSlots, TakeOptions, Taking } from './slot-space-parts.ts'

/** Space is reserved in pieces of this size: btrfs gives a piece back only when no page of it is used. */
const reservedPieceBytes = 1024 * 1024
/** Pieces between two looks at what others leave. */
const piecesPerLook = 8

/**
 * Which slots hold what:
 *
 *   free ── take ──▶ under way ── publish ──▶ live ── drop ──▶ retired ──▶ free, warm (still has its space)
 *    ▲                  │                                        │ └─────▶ punched ──▶ free, without space
 *    └──── giveUp ──────┘                                        └──▶ quarantined: not used again
 *
 * Warm slots are taken again without asking the file system for space.
 */
export class SlotSpace {
  readonly slots: SlotAllocator
  /** Of a file that was there before. */
  readonly found: FoundSlots
  readonly #parts: SlotSpaceParts
  readonly #warmSlots: number
  /** Slots that have space in the file. */
  readonly #backed = new BitSet()
  /** Those of them that are free. */
  readonly #warm = new BitSet()
  readonly #longWarmRuns: LongWarmRuns
  readonly #puncher: HolePuncher | undefined
  /** Slots at the puncher that are not known to have space. */
  #bareQueuedSlots = 0
  readonly #underWay = new Set<HandleRun>()
  readonly #quarantined = new Set<number>()
  /** Slots that hold metadata of images: their handles are no pages'. */
  readonly #metadata = new MetadataSlots()
  #emptying: Promise<void> | undefined

  constructor(parts: SlotSpaceParts) {
    this.#parts = parts
    this.#warmSlots = Math.floor(parts.warmBytes / parts.pageSizeBytes)
    this.slots = new SlotAllocator({
      capacitySlots: parts.capacitySlots,
      ...(parts.generation !== undefined && { generationSeed: parts.generation }),
    })
    const mayReuse = parts.storage.overwritesInPlace
    this.#longWarmRuns = new LongWarmRuns(this.slots, this.#warm, mayReuse ? parts.pageSizeBytes : undefined)
    this.found = new FoundSlots({
      slots: this.slots,
      metadata: this.#metadata,
      backed: this.#backed,
      letGo: (slot, count) => this.#letGo(slot, count),
    })
    const { punch } = parts.storage
    if (punch !== undefined) {
      this.#puncher = new HolePuncher({
        pageSizeBytes: parts.pageSizeBytes,
        units: parts.storage.units,
        punch,
        settle: (slot, count, isHole) => {
          this.#bareQueuedSlots -= count - this.#backed.countIn(slot, count)
          if (isHole) this.#backed.clear(slot, count)
          this.#release(slot, count)
        },
        claim: (slot) => this.#claim(slot),
        isBare: (slot, count) => this.#backed.countIn(slot, count) === 0,
        gaveBack: (bytes) => parts.disk.gaveBack(bytes),
      })
    }
  }

  get quarantinedPages(): number {
    return this.#quarantined.size
  }

  /** Slots of pages that are stored or on their way. */
  get pageSlots(): number {
    return this.slots.liveSlots - this.#metadata.count
  }

  /** Bytes of all slots that have space. */
  get backedBytes(): number {
    return this.#backed.count * this.#parts.pageSizeBytes
  }

  get punchedBytes(): number {
    return this.#puncher?.punchedBytes ?? 0
  }

  /** Bytes that could be stored now, as far as slots and file system tell (T8). */
  async bytesAvailable(): Promise<number> {
    const { disk, pageSizeBytes, storage } = this.#parts
    const diskPages = Math.floor((await disk.freeBytes()) / pageSizeBytes)
    const queued = this.#puncher?.queuedSlots ?? 0
    const free = Math.max(0, this.slots.freeSlots + queued - this.#keptForMetadata)
    const backed = storage.overwritesInPlace ? this.#warm.count + queued - this.#bareQueuedSlots : 0
    const warm = Math.min(backed, free)
    return (warm + Math.min(Math.max(0, free - warm), diskPages)) * pageSizeBytes
  }

  /** Takes slots for up to `wanted` pages, first those of `reserved` (which it empties). Fewer come with an `ENOSPC`. */
  async take(wanted: number, { reserved = [], forMetadata = false }: TakeOptions = {}): Promise<TakenSlots> {
    if (this.#emptying !== undefined) await this.#emptying
    const taken: Taking = { runs: [], pages: 0, grantedBytes: 0, forMetadata }
    this.#takeReserved(taken, wanted, reserved)
    while (taken.pages < wanted) {
      const run = await this.#allocate(wanted - taken.pages, taken)
      if (run === undefined) {
        return { ...taken, error: this.#full(this.#whyNoSlot) }
      }
      let failure: unknown
      const { usable, granted } = await this.#grant(run).catch((thrown: unknown) => {
        failure = thrown
        return { usable: 0, granted: 0 }
      })
      taken.grantedBytes += granted
      this.#underWay.delete(run)
      if (usable > 0) this.#track(taken, { first: run.first, count: usable })
      if (usable === run.count) continue
      this.slots.retire([{ first: run.first + usable, count: run.count - usable }])
      this.#release(this.slots.slotOf(run.first) + usable, run.count - usable)
      // No space for slots that have none: those that were dropped still have theirs.
      await this.#takeWarm(taken, wanted)
      if (taken.pages === wanted) break
      return { ...taken, error: this.#noSpace(failure) }
    }
    return taken
  }

  /** Takes slots for metadata, all or none. Rejects with `ENOSPC`. */
  async takeForMetadata(count: number): Promise<readonly HandleRun[]> {
    const taken = await this.take(count, { forMetadata: true })
    const runs = this.publish(taken, taken.error === undefined ? count : 0, taken.error)
    if (taken.error !== undefined) throw taken.error
    this.#metadata.add(runs, this.slots)
    return runs
  }

  dropMetadata(runs: readonly HandleRun[]): void {
    this.#metadata.remove(runs, this.slots)
    this.drop(runs)
  }

  /** As `take`, but only slots that have their space already: for when the file system has no more. */
  async takeWarm(wanted: number): Promise<TakenSlots> {
    const taken: Taking = { runs: [], pages: 0, grantedBytes: 0, forMetadata: false }
    await this.#takeWarm(taken, wanted)
    return taken.pages === wanted ? taken : { ...taken, error: this.#noSpace(undefined) }
  }

  /**
   * The first `pages` of what was taken hold their content: returns their handles. The others are free again; `error` is what stopped
   * them.
   */
  publish(taken: TakenSlots, pages: number, error?: Error): HandleRun[] {
    const handles: HandleRun[] = []
    let left = pages
    for (const run of taken.runs) {
      this.#underWay.delete(run)
      const count = Math.min(left, run.count)
      left -= count
      if (count > 0) {
        this.#backed.set(this.slots.slotOf(run.first), count)
        handles.push(count === run.count ? run : { first: run.first, count })
      }
      if (count < run.count) this.#giveUp({ first: run.first + count, count: run.count - count }, error)
    }
    this.#parts.disk.settle(taken.grantedBytes, taken.grantedBytes)
    if (pages < taken.pages) this.#parts.disk.forget()
    if (isFullError(error) && error !== taken.error) this.#parts.disk.refused()
    return handles
  }

  /** Takes and allocates slots that are held until `take` draws them or `release` frees them. */
  async reserve(pages: number): Promise<HandleRun[]> {
    // One after the other on a file system: two that fit alone would refuse each other half way.
    return inTurn(`reserve on ${this.#parts.deviceId}`, () => this.#reserve(pages))
  }

  async #reserve(pages: number): Promise<HandleRun[]> {
    const { disk } = this.#parts
    disk.forget()
    const taken = await this.take(pages)
    const failure = taken.error ?? (await this.#allocateSpace(taken.runs))
    disk.settle(taken.grantedBytes, taken.grantedBytes)
    disk.forget()
    if (failure === undefined) return [...taken.runs]
    for (const run of taken.runs) {
      this.#underWay.delete(run)
      this.slots.retire([run])
      this.#giveBack(this.slots.slotOf(run.first), run.count, false)
    }
    // Refused is refused: the caller finds the space free again.
    await this.#puncher?.idle()
    throw failure
  }

  /**
   * Allocates the space of these runs in small pieces: some file systems give a piece back only when no page of it is used. Returns what
   * stopped it.
   */
  async #allocateSpace(runs: readonly HandleRun[]): Promise<unknown> {
    const { storage, disk, pageSizeBytes, name } = this.#parts
    const pieceSlots = Math.max(1, reservedPieceBytes / pageSizeBytes)
    let pieces = 0
    try {
      for (const run of runs) {
        const end = this.slots.slotOf(run.first) + run.count
        for (let slot = this.slots.slotOf(run.first); slot < end; ) {
          const count = Math.min(pieceSlots - (slot % pieceSlots), end - slot)
          await storage.allocate!(slot * pageSizeBytes, count * pageSizeBytes)
          this.#backed.set(slot, count)
          slot += count
          if (++pieces % piecesPerLook === 0 && (await disk.isShort())) {
            throw this.#full('others took the space beyond keepFreeBytes meanwhile')
          }
        }
      }
      return undefined
    } catch (failure) {
      if (isFullError(failure)) disk.refused()
      return systemError(failure, `space could not be allocated for backup ${name}`, { backup: name })
    }
  }

  /** Frees slots that were reserved. */
  release(reserved: HandleRun[]): void {
    for (const run of reserved.splice(0)) {
      this.#underWay.delete(run)
      this.slots.retire([run])
      this.#letGo(this.slots.slotOf(run.first), run.count)
    }
  }

  /** The first handle that names no stored page, or `undefined`. */
  firstNotLive(runs: readonly HandleRun[]): number | undefined {
    const stale = this.slots.firstNotLive(runs) ?? this.#metadata.firstOf(runs, this.slots)
    if (stale !== undefined || this.#underWay.size === 0) return stale
    for (const run of runs) {
      for (const other of this.#underWay) {
        if (run.first < other.first + other.count && other.first < run.first + run.count) {
          return Math.max(run.first, other.first)
        }
      }
    }
    return undefined
  }

  /** Whether `count` adjacent handles from this one on name stored pages. */
  isLive(first: number, count: number): boolean {
    if (!this.slots.isLive(first, count)) return false
    if (this.#underWay.size === 0 && this.#metadata.count === 0) return true
    return this.firstNotLive([{ first, count }]) === undefined
  }

  /** Drops these pages, all or none: returns the first handle that is not live. */
  drop(runs: readonly HandleRun[]): number | undefined {
    const stale = this.firstNotLive(runs) ?? this.slots.retire(runs)
    if (stale !== undefined) return stale
    this.#letGoAll(runs)
    this.#emptyWhenUnused()
    return undefined
  }

  /** Waits for what gives space back, and lets no more of it begin. */
  async close(): Promise<void> {
    await this.#puncher?.stop()
    await this.#emptying
  }

  #letGoAll(runs: readonly HandleRun[]): void {
    let first = 0
    let count = 0
    for (const run of runs) {
      const slot = this.slots.slotOf(run.first)
      if (count > 0 && slot === first + count) {
        count += run.count
        continue
      }
      if (count > 0) this.#letGo(first, count)
      first = slot
      count = run.count
    }
    if (count > 0) this.#letGo(first, count)
  }

  /** A page that failed its checksum: whatever becomes of the handle, its slot is not used again. */
  quarantine(handle: number): void {
    this.#quarantined.add(this.slots.slotOf(handle))
  }

  #takeReserved(taken: Taking, wanted: number, reserved: HandleRun[]): void {
    while (taken.pages < wanted && reserved.length > 0) {
      const run = reserved.shift()!
      this.#underWay.delete(run)
      const count = Math.min(run.count, wanted - taken.pages)
      if (count < run.count) {
        const rest = { first: run.first + count, count: run.count - count }
        this.#underWay.add(rest)
        reserved.unshift(rest)
      }
      this.#track(taken, { first: run.first, count })
    }
  }

  #track(taken: Taking, run: HandleRun): void {
    taken.runs.push(run)
    taken.pages += run.count
    this.#underWay.add(run)
  }

  async #allocate(wanted: number, taking: Taking): Promise<HandleRun | undefined> {
    for (;;) {
      const most = Math.min(wanted, this.#freeFor(taking))
      const run = most > 0 ? (this.#longWarmRuns.take(most) ?? this.slots.allocateRun(most)) : undefined
      if (run !== undefined) {
        // At once, so that nobody who guesses these handles finds them live.
        this.#underWay.add(run)
        if (this.#warm.count > 0) this.#warm.clear(this.slots.slotOf(run.first), run.count)
        return run
      }
      // Better a slot that was about to be punched than none. Others may be quicker: look until none is left.
      if ((this.#puncher?.queuedSlots ?? 0) === 0) return undefined
      await this.#puncher!.release(wanted)
    }
  }

  /** Free slots that may be taken: pages leave some to metadata. */
  #freeFor({ forMetadata }: Pick<Taking, 'forMetadata'>): number {
    return this.slots.freeSlots - (forMetadata ? 0 : this.#keptForMetadata)
  }

  get #keptForMetadata(): number {
    return Math.max(0, (this.#parts.metadataSlots ?? 0) - this.#metadata.count)
  }

  /** Takes slots that have their space, as far as there are any. */
  async #takeWarm(taken: Taking, wanted: number): Promise<void> {
    if (!this.#parts.storage.overwritesInPlace) return
    while (taken.pages < wanted) {
      const most = Math.min(wanted - taken.pages, this.#freeFor(taken))
      const warm = most > 0 ? this.#warm.runFrom(0, most) : undefined
      if (warm !== undefined) {
        const run = this.slots.allocateAt(warm.first, warm.count)!
        this.#warm.clear(warm.first, run.count)
        this.#track(taken, run)
      } else if ((this.#puncher?.queuedSlots ?? 0) > 0) {
        await this.#puncher!.release(wanted - taken.pages)
      } else {
        return
      }
    }
  }

  /** Takes a free slot out of use, to be part of a hole; false when it is in use. */
  #claim(slot: number): boolean {
    const run = this.slots.allocateAt(slot, 1)
    if (run === undefined) return false
    this.slots.retire([run])
    this.#warm.clear(slot, 1)
    if (!this.#backed.has(slot)) this.#bareQueuedSlots++
    return true
  }

  /** Makes retired slots free, and keeps in mind which of them have their space. */
  #release(slot: number, count: number): void {
    this.slots.release(slot, count)
    const backed = this.#backed.countIn(slot, count)
    if (backed === count) this.#warm.set(slot, count)
    else if (backed > 0) {
      for (let at = slot; at < slot + count; at++) if (this.#backed.has(at)) this.#warm.set(at, 1)
    }
  }

  /** Asks the file system for space where the run has none; says how many of its slots may be used. */
  async #grant(run: HandleRun): Promise<{ usable: number; granted: number }> {
    const { pageSizeBytes, disk, storage } = this.#parts
    const slot = this.slots.slotOf(run.first)
    const unitSlots = storage.units.partsAddUp ? 1 : storage.units.slots
    const backed = storage.overwritesInPlace ? this.#backed : undefined
    const piece = { firstSlot: slot, count: run.count, unitSlots, backed }
    const needed = freshUnits(piece, Number.POSITIVE_INFINITY)
    if (needed.units === 0) return { usable: run.count, granted: 0 }
    const unitBytes = unitSlots * pageSizeBytes
    const granted = await disk.grant(needed.units * unitBytes, unitBytes)
    if (granted === needed.units * unitBytes) return { usable: run.count, granted }
    return { usable: freshUnits(piece, granted / unitBytes).slots, granted }
  }

  /** Slots that were taken and not used: what had its space keeps it, and of the rest, which may have been written, none keeps space unseen. */
  #giveUp(run: HandleRun, error: Error | undefined): void {
    this.slots.retire([run])
    const end = this.slots.slotOf(run.first) + run.count
    for (let slot = this.slots.slotOf(run.first); slot < end; ) {
      const isBacked = this.#backed.has(slot)
      let next = slot + 1
      while (next < end && this.#backed.has(next) === isBacked) next++
      if (isBacked) this.#letGo(slot, next - slot)
      else this.#giveBack(slot, next - slot, !isFullError(error))
      slot = next
    }
  }

  /** Retired slots that may have space: it goes back to the file system. Those that probably have it are warm until then. */
  #giveBack(slot: number, count: number, probablyBacked: boolean): void {
    if (this.#puncher === undefined) {
      this.#release(slot, count)
      return
    }
    if (probablyBacked) this.#backed.set(slot, count)
    this.#bareQueuedSlots += count - this.#backed.countIn(slot, count)
    this.#puncher.add(slot, count)
  }

  /** Retired slots become warm or are queued for punching, but for quarantined ones. */
  #letGo(slot: number, count: number): void {
    let from = slot
    if (this.#quarantined.size > 0) {
      for (let at = slot; at < slot + count; at++) {
        if (!this.#quarantined.has(at)) continue
        if (at > from) this.#releaseOrPunch(from, at - from)
        from = at + 1
      }
    }
    if (slot + count > from) this.#releaseOrPunch(from, slot + count - from)
  }

  #releaseOrPunch(slot: number, count: number): void {
    const staysWarm = this.#warm.count + count <= this.#warmSlots
    if (this.#puncher === undefined || staysWarm) this.#release(slot, count)
    else this.#puncher.add(slot, count)
  }

  /** Without holes to punch, space goes back when the last page has gone. */
  #emptyWhenUnused(): void {
    const { empty } = this.#parts.storage
    if (this.#puncher !== undefined || empty === undefined || this.#emptying !== undefined) return
    if (this.slots.liveSlots > 0 || this.found.withheldSlots > 0) return
    if (this.#backed.count <= this.#warmSlots) return
    this.#emptying = empty()
      .then(() => {
        this.#backed.reset()
        this.#warm.reset()
      })
      .catch(() => {})
      .finally(() => {
        this.#emptying = undefined
        this.#parts.disk.forget()
      })
  }

  /** Why there is no space: the file system is full, or does not answer. */
  #noSpace(failure: unknown): Error {
    const { name, disk } = this.#parts
    if (failure === undefined) return this.#full(disk.whyFull)
    return systemError(failure, `backup ${name} cannot ask its file system for space`, { backup: name })
  }

  get #whyNoSlot(): string {
    const { capacitySlots, metadataSlots = 0, pageSizeBytes } = this.#parts
    const used = `its capacity of ${(capacitySlots - metadataSlots) * pageSizeBytes} bytes is used up`
    const withheldBytes = this.found.withheldSlots * pageSizeBytes
    return withheldBytes === 0 ? used : `${used}; ${withheldBytes} of them may be of damaged images`
  }

  #full(reason: string): SpillwayError {
    return new SpillwayError('ENOSPC', `backup ${this.#parts.name} is full: ${reason}`, {
      backup: this.#parts.name,
    })
  }
}
