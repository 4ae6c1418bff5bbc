import { type HandleRun, SlotAllocator, SpillwayError } from '@spillway/core'
import type { DiskSpace } from './disk-space.ts'
import type { FileStorage } from './file-storage.ts'
import { HolePuncher } from './hole-puncher.ts'
import { SlotBits } from './slot-bits.ts'

export interface SlotSpaceParts {
  readonly name: string
  readonly pageSizeBytes: number
  readonly capacitySlots: number
  readonly warmBytes: number
  readonly disk: DiskSpace
  readonly storage: FileStorage
}

/** Slots taken for pages that are on their way; nobody knows their handles yet. */
export interface TakenSlots {
  readonly runs: HandleRun[]
  readonly pages: number
  /** Space granted for slots that had none. */
  readonly grantedBytes: number
  /** Why there are fewer than were wanted. */
  readonly error?: Error | undefined
}

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
  readonly #parts: SlotSpaceParts
  readonly #warmSlots: number
  /** Slots that have space in the file. */
  readonly #backed = new SlotBits()
  readonly #puncher: HolePuncher | undefined
  readonly #underWay = new Set<HandleRun>()
  readonly #quarantined = new Set<number>()
  #quarantinedRetired = 0
  #emptying: Promise<void> | undefined

  constructor(parts: SlotSpaceParts) {
    this.#parts = parts
    this.#warmSlots = Math.floor(parts.warmBytes / parts.pageSizeBytes)
    this.slots = new SlotAllocator({ capacitySlots: parts.capacitySlots })
    const { punch } = parts.storage
    if (punch !== undefined) {
      this.#puncher = new HolePuncher(parts.pageSizeBytes, punch, (slot, count, punched) => {
        if (punched) this.#backed.clear(slot, count)
        this.slots.release(slot, count)
        parts.disk.forget()
      })
    }
  }

  get quarantinedPages(): number {
    return this.#quarantined.size
  }

  get punchedBytes(): number {
    return this.#puncher?.punchedBytes ?? 0
  }

  /** Bytes that could be stored now, as far as slots and file system tell (T8). */
  async bytesAvailable(): Promise<number> {
    const diskBytes = await this.#parts.disk.freeBytes()
    const free = this.slots.freeSlots + (this.#puncher?.queuedSlots ?? 0)
    const warm = Math.max(0, this.#backed.count - this.slots.liveSlots - this.#quarantinedRetired)
    const fresh = Math.min(Math.max(0, free - warm), Math.floor(diskBytes / this.#parts.pageSizeBytes))
    return Math.min(free, warm + fresh) * this.#parts.pageSizeBytes
  }

  /** Takes slots for up to `wanted` pages, first those of `reserved` (which it empties). Fewer come with an `ENOSPC`. */
  async take(wanted: number, reserved: HandleRun[] = []): Promise<TakenSlots> {
    if (this.#emptying !== undefined) await this.#emptying
    const runs: HandleRun[] = []
    let pages = 0
    let grantedBytes = 0
    while (pages < wanted && reserved.length > 0) {
      const run = reserved.shift()!
      this.#underWay.delete(run)
      const count = Math.min(run.count, wanted - pages)
      if (count < run.count) {
        const rest = { first: run.first + count, count: run.count - count }
        this.#underWay.add(rest)
        reserved.unshift(rest)
      }
      pages += this.#track(runs, { first: run.first, count })
    }
    while (pages < wanted) {
      const run = await this.#allocate(wanted - pages)
      if (run === undefined) {
        const bytes = this.#parts.capacitySlots * this.#parts.pageSizeBytes
        return { runs, pages, grantedBytes, error: this.#full(`its capacity of ${bytes} bytes is used up`) }
      }
      const { usable, granted } = await this.#grant(run)
      grantedBytes += granted
      this.#underWay.delete(run)
      if (usable > 0) pages += this.#track(runs, { first: run.first, count: usable })
      if (usable < run.count) {
        this.slots.freeRun({ first: run.first + usable, count: run.count - usable })
        const error = this.#full('the file system has no space left beyond keepFreeBytes')
        return { runs, pages, grantedBytes, error }
      }
    }
    return { runs, pages, grantedBytes }
  }

  /** The first `pages` of what was taken hold their content: returns their handles. The others are free again. */
  publish(taken: TakenSlots, pages: number): HandleRun[] {
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
      if (count < run.count) this.#giveUp({ first: run.first + count, count: run.count - count })
    }
    this.#parts.disk.settle(taken.grantedBytes, taken.grantedBytes)
    if (pages < taken.pages) this.#parts.disk.forget()
    return handles
  }

  /** Takes and allocates slots that are held until `take` draws them or `release` frees them. */
  async reserve(pages: number): Promise<HandleRun[]> {
    const { storage, disk, pageSizeBytes } = this.#parts
    const taken = await this.take(pages)
    let failure: unknown = taken.error
    try {
      for (const run of failure === undefined ? taken.runs : []) {
        await storage.allocate!(this.slots.slotOf(run.first) * pageSizeBytes, run.count * pageSizeBytes)
        this.#backed.set(this.slots.slotOf(run.first), run.count)
      }
    } catch (thrown) {
      failure = thrown
    }
    disk.settle(taken.grantedBytes, taken.grantedBytes)
    disk.forget()
    if (failure === undefined) return taken.runs
    this.release(taken.runs)
    throw failure
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
    const stale = this.slots.firstNotLive(runs)
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

  /** Drops these pages, all or none: returns the first handle that is not live. */
  drop(runs: readonly HandleRun[]): number | undefined {
    const stale = this.firstNotLive(runs) ?? this.slots.retire(runs)
    if (stale !== undefined) return stale
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
    this.#emptyWhenUnused()
    return undefined
  }

  /** A page that failed its checksum: whatever becomes of the handle, its slot is not used again. */
  quarantine(handle: number): void {
    this.#quarantined.add(this.slots.slotOf(handle))
  }

  /** Waits for what gives space back, and lets no more of it begin. */
  async close(): Promise<void> {
    await this.#puncher?.stop()
    await this.#emptying
  }

  #track(runs: HandleRun[], run: HandleRun): number {
    runs.push(run)
    this.#underWay.add(run)
    return run.count
  }

  async #allocate(wanted: number): Promise<HandleRun | undefined> {
    let run = this.slots.allocateRun(wanted)
    if (run === undefined && this.#puncher !== undefined && this.#puncher.queuedSlots > 0) {
      // Better a slot that was about to be punched than none.
      await this.#puncher.release(wanted)
      run = this.slots.allocateRun(wanted)
    }
    // At once, so that nobody who guesses these handles finds them live.
    if (run !== undefined) this.#underWay.add(run)
    return run
  }

  /** Asks the file system for space where the run has none; says how many of its slots may be used. */
  async #grant(run: HandleRun): Promise<{ usable: number; granted: number }> {
    const { pageSizeBytes, disk } = this.#parts
    const slot = this.slots.slotOf(run.first)
    const fresh = run.count - this.#backed.countIn(slot, run.count)
    if (fresh === 0) return { usable: run.count, granted: 0 }
    const granted = await disk.grant(fresh * pageSizeBytes, pageSizeBytes)
    if (granted === fresh * pageSizeBytes) return { usable: run.count, granted }
    let usable = 0
    for (let left = granted / pageSizeBytes; usable < run.count; usable++) {
      if (!this.#backed.has(slot + usable) && left-- === 0) break
    }
    return { usable, granted }
  }

  #giveUp(run: HandleRun): void {
    const slot = this.slots.slotOf(run.first)
    // Some of them may have been written: punch them all, so that none keeps space unseen.
    if (this.#puncher !== undefined) this.#backed.set(slot, run.count)
    this.slots.retire([run])
    if (this.#puncher === undefined) this.slots.release(slot, run.count)
    else this.#puncher.add(slot, run.count)
  }

  /** Retired slots become warm or are queued for punching, but for quarantined ones. */
  #letGo(slot: number, count: number): void {
    let from = slot
    if (this.#quarantined.size > 0) {
      for (let at = slot; at < slot + count; at++) {
        if (!this.#quarantined.has(at)) continue
        this.#quarantinedRetired++
        if (at > from) this.#releaseOrPunch(from, at - from)
        from = at + 1
      }
    }
    if (slot + count > from) this.#releaseOrPunch(from, slot + count - from)
  }

  #releaseOrPunch(slot: number, count: number): void {
    const queued = this.#puncher?.queuedSlots ?? 0
    const warm = this.#backed.count - this.slots.liveSlots - queued
    if (this.#puncher === undefined || warm <= this.#warmSlots) this.slots.release(slot, count)
    else this.#puncher.add(slot, count)
  }

  /** Without holes to punch, space goes back when the last page has gone. */
  #emptyWhenUnused(): void {
    const { empty } = this.#parts.storage
    if (this.#puncher !== undefined || empty === undefined || this.#emptying !== undefined) return
    if (this.slots.liveSlots > 0 || this.#backed.count <= this.#warmSlots) return
    this.#emptying = empty()
      .then(() => this.#backed.reset())
      .catch(() => {})
      .finally(() => {
        this.#emptying = undefined
        this.#parts.disk.forget()
      })
  }

  #full(reason: string): SpillwayError {
    return new SpillwayError('ENOSPC', `backup ${this.#parts.name} is full: ${reason}`, {
      backup: this.#parts.name,
    })
  }
}
