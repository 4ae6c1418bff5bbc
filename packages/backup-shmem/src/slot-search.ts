import type { HandleRun, SlotAllocator } from '@spillway/core'
import type { SlotMemory } from './slot-memory.ts'

/**
 * Which free slots one call tries. Slots that still have memory need none of the system, so a full system must not keep
 * them from being used:
 *
 *   memory is scarce ──▶ warm ── none left ──▶ any ── the system refused memory ──▶ warm ── none left ──▶ full
 *   else ──────────────────────────────────────▲
 */
export class SlotSearch {
  readonly #slots: SlotAllocator
  readonly #memory: SlotMemory
  /** Warm slots are looked for from here on; −1: any free slot will do. */
  #warmFrom: number
  #isRefused = false

  constructor(slots: SlotAllocator, memory: SlotMemory, wantedSlots: number) {
    this.#slots = slots
    this.#memory = memory
    this.#warmFrom = memory.isScarce(wantedSlots) ? 0 : -1
  }

  /** Takes up to `wantedSlots` adjacent free slots; `undefined` when nothing is left to try. */
  next(wantedSlots: number): HandleRun | undefined {
    if (this.#warmFrom >= 0) {
      const run = this.#nextWarm(wantedSlots)
      if (run !== undefined || this.#isRefused) return run
      this.#warmFrom = -1
    }
    return this.#slots.allocateRun(wantedSlots)
  }

  /** The system had no memory for this slot: only warm ones are tried from now on. */
  refused(slot: number): void {
    this.#warmFrom = this.#warmFrom < 0 ? 0 : slot + 1
    this.#isRefused = true
  }

  #nextWarm(wantedSlots: number): HandleRun | undefined {
    for (;;) {
      const warm = this.#memory.warmRun(this.#warmFrom, wantedSlots)
      if (warm === undefined) return undefined
      const run = this.#slots.allocateAt(warm.first, warm.count)
      this.#warmFrom = warm.first + (run?.count ?? 1)
      // A warm slot that is not free is in the hands of another call.
      if (run !== undefined) return run
    }
  }
}
