import { type BitRun, BitSet, nextTurn, pace } from '@spillway/core'
import type { Headroom } from './headroom.ts'
import type { Medium } from './media/medium.ts'

/**
 * Which slots have memory, and when it goes back to the system.
 *
 *   cold ── claim ──▶ in use ── release ──▶ warm ── claim ──▶ in use
 *    ▲                                       │
 *    └────────── cooling: warm > limit ──────┘
 *
 * Memory that is touched for the first time costs ten times a copy, so a released slot keeps its memory up to a limit.
 * What is above it is given back in runs, from the highest slot down, because the allocator fills from the lowest up:
 * first the runs of a megabyte and more, then, if that was not enough, whatever there is.
 *
 * Where the medium gives back larger units than a page, a unit goes back when no slot in it is in use.
 */
export interface SlotMemoryOptions {
  readonly medium: Medium
  readonly headroom: Headroom
  readonly pageSizeBytes: number
  readonly warmBytes: number
}

const longRunBytes = 1024 ** 2
/** Given back in one step: 0.3 ms of kernel work, or the cost of one system call. */
const stepBytes = 1024 ** 2

export class SlotMemory {
  readonly #medium: Medium
  readonly #headroom: Headroom
  readonly #pageSizeBytes: number
  readonly #warmLimitSlots: number
  readonly #unitSlots: number
  // Slots that are free and have memory.
  readonly #warm = new BitSet()
  #warmSlots = 0
  // No slot at or beyond this one ever had memory.
  #endSlot = 0
  readonly #inUseOfUnit: number[] = []
  #cooling: Promise<void> | undefined
  // Slots were released since the last pass began: it may have gone past them.
  #hasNewSurplus = false
  #stopped = false
  // No slot below this one is warm.
  #lowestWarm = 0
  // Slots of the last claim that get their memory only when they are written.
  readonly #coldRuns: BitRun[] = []
  #givenBackSlots = 0
  #failures = 0

  constructor(options: SlotMemoryOptions) {
    this.#medium = options.medium
    this.#headroom = options.headroom
    this.#pageSizeBytes = options.pageSizeBytes
    this.#warmLimitSlots = Math.floor(options.warmBytes / options.pageSizeBytes)
    this.#unitSlots = Math.max(1, Math.ceil(options.medium.giveBackUnitBytes / options.pageSizeBytes))
  }

  get warmBytes(): number {
    return this.#warmSlots * this.#pageSizeBytes
  }

  /** Bytes that could be put in use: what is warm and what the system could give. */
  get obtainableBytes(): number {
    return this.warmBytes + this.#headroom.bytes()
  }

  get givenBackBytes(): number {
    return this.#givenBackSlots * this.#pageSizeBytes
  }

  /** Times that the system refused to take memory back; the memory stayed warm. */
  get giveBackErrors(): number {
    return this.#failures
  }

  get metadataBytes(): number {
    return this.#warm.metadataBytes + this.#inUseOfUnit.length * 8
  }

  /** Whether the system has too little memory for so many slots, while some are warm. */
  isScarce(slots: number): boolean {
    return this.#warmSlots > 0 && this.#headroom.bytes() < slots * this.#pageSizeBytes
  }

  /** The first run of warm slots from `from` on, at most `most` of them; `undefined` when there is none. */
  warmRun(from: number, most: number): BitRun | undefined {
    const start = Math.max(from, this.#lowestWarm)
    const first = this.#warm.endOfClear(start, this.#endSlot)
    if (from <= this.#lowestWarm) this.#lowestWarm = first
    if (first >= this.#endSlot) return undefined
    return { first, count: this.#warm.endOfSet(first, Math.min(this.#endSlot, first + most)) - first }
  }

  /**
   * Puts slots in use and makes sure that they have memory. Throws what the system says when it has none; then no slot
   * is in use, and what memory was made is warm. `mustBack`: also where the medium would make it on writing.
   */
  claim(first: number, count: number, mustBack = false): void {
    const end = first + count
    this.#coldRuns.length = 0
    try {
      for (let slot = first; slot < end; ) {
        const cold = this.#warm.endOfSet(slot, end)
        slot = this.#warm.endOfClear(cold, end)
        if (slot > cold) this.#back(cold, slot - cold, mustBack)
      }
    } catch (failure) {
      this.#forgetUnwritten()
      throw failure
    }
    this.#warm.clear(first, count)
    this.#warmSlots -= count
    this.#countInUse(first, count, 1)
  }

  /** Undoes the last `claim`, of these slots, because they could not be written. Where that makes memory they may have none. */
  unclaim(first: number, count: number): void {
    this.release(first, count)
    this.#forgetUnwritten()
  }

  /** Takes slots out of use; their memory stays warm until there is too much of it. */
  release(first: number, count: number): void {
    this.#setWarm(first, count)
    this.#countInUse(first, count, -1)
    if (this.#warmSlots > this.#warmLimitSlots) this.#cool()
  }

  /** Resolves when no more memory is being given back; afterwards none will be. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#cooling
  }

  #back(first: number, count: number, mustBack: boolean): void {
    const bytes = count * this.#pageSizeBytes
    this.#headroom.take(bytes)
    const isMade = mustBack || !this.#medium.backsOnWrite
    if (isMade) this.#medium.back(first * this.#pageSizeBytes, bytes)
    else this.#coldRuns.push({ first, count })
    this.#setWarm(first, count)
    this.#endSlot = Math.max(this.#endSlot, first + count)
  }

  #setWarm(first: number, count: number): void {
    this.#warm.set(first, count)
    this.#warmSlots += count
    this.#lowestWarm = Math.min(this.#lowestWarm, first)
  }

  /** The slots that were claimed in the hope of a write are not warm. */
  #forgetUnwritten(): void {
    for (const { first, count } of this.#coldRuns) {
      this.#warm.clear(first, count)
      this.#warmSlots -= count
    }
    this.#coldRuns.length = 0
  }

  #countInUse(first: number, count: number, sign: 1 | -1): void {
    if (this.#unitSlots === 1) return
    for (let slot = first; slot < first + count; ) {
      const unit = Math.floor(slot / this.#unitSlots)
      const length = Math.min((unit + 1) * this.#unitSlots, first + count) - slot
      this.#inUseOfUnit[unit] = (this.#inUseOfUnit[unit] ?? 0) + sign * length
      slot += length
    }
  }

  #cool(): void {
    this.#hasNewSurplus = true
    if (this.#stopped) return
    this.#cooling ??= this.#giveBackSurplus()
  }

  async #giveBackSurplus(): Promise<void> {
    await nextTurn(stepBytes)
    const passes = this.#unitSlots > 1 ? [1] : [Math.ceil(longRunBytes / this.#pageSizeBytes), 1]
    while (this.#hasNewSurplus) {
      this.#hasNewSurplus = false
      for (const shortestRun of passes) {
        let end = this.#endSlot
        while (end > 0 && !this.#stopped && this.#warmSlots > this.#warmLimitSlots) {
          const turn = pace(stepBytes)
          if (turn !== undefined) await turn
          end = this.#unitSlots > 1 ? this.#giveBackUnit(end) : this.#giveBackRun(end, shortestRun)
        }
      }
    }
    // In the same step as the last look at the flag: a release in between would wait for ever.
    this.#cooling = undefined
  }

  /** Gives back (part of) the last warm run below `end`; returns where to go on. */
  #giveBackRun(end: number, shortestRun: number): number {
    // A search looks at a bounded stretch, so that a terabyte of slots does not hold the event loop.
    const floor = Math.max(0, end - 2 ** 21)
    const run = this.#warm.lastRun(floor, end)
    if (run === undefined) return floor
    if (run.count < shortestRun) return run.first
    const surplus = this.#warmSlots - this.#warmLimitSlots
    const count = Math.min(run.count, surplus, Math.max(1, stepBytes / this.#pageSizeBytes))
    const first = run.first + run.count - count
    this.#giveBack(first, count)
    return first
  }

  /** Gives back the last unit below `end` if nothing in it is in use; returns where to go on. */
  #giveBackUnit(end: number): number {
    const run = this.#warm.lastRun(0, end)
    if (run === undefined) return 0
    const unit = Math.floor((run.first + run.count - 1) / this.#unitSlots)
    const first = unit * this.#unitSlots
    if ((this.#inUseOfUnit[unit] ?? 0) === 0) this.#giveBack(first, this.#unitSlots)
    return first
  }

  #giveBack(first: number, count: number): void {
    try {
      this.#medium.giveBack(first * this.#pageSizeBytes, count * this.#pageSizeBytes)
    } catch {
      // The memory is still there and still usable: nothing is lost but the room.
      this.#failures++
      return
    }
    let given = 0
    for (let slot = first; slot < first + count; ) {
      const start = this.#warm.endOfClear(slot, first + count)
      const end = this.#warm.endOfSet(start, first + count)
      given += end - start
      slot = end
    }
    this.#warm.clear(first, count)
    this.#warmSlots -= given
    this.#givenBackSlots += given
  }
}
