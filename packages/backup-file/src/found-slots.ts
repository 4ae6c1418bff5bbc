import { BitSet, type HandleRun, type HandleRuns, pace, type SlotAllocator } from '@spillway/core'
import type { MetadataSlots } from './metadata-slots.ts'

/** What adopting or releasing one run costs, as bytes that are copied in the same time. */
const adoptedBytes = 1024
/** Slots that are released in one step. */
const releasedSlots = 4096

export interface FoundSlotsParts {
  readonly slots: SlotAllocator
  readonly metadata: MetadataSlots
  /** Slots that have space in the file. */
  readonly backed: BitSet
  /** Retired slots are free from now on. */
  readonly letGo: (slot: number, count: number) => void
}

/**
 * The slots of a file that was there before:
 *
 *   named by a whole image ── adopt ──▶ live
 *   all others ── adoptRest ──▶ free
 *                    └────────▶ withheld: a damaged image may name them ── releaseWithheld ──▶ free
 */
export class FoundSlots {
  readonly #parts: FoundSlotsParts
  readonly #withheld = new BitSet()

  constructor(parts: FoundSlotsParts) {
    this.#parts = parts
  }

  get withheldSlots(): number {
    return this.#withheld.count
  }

  /** The slots of these pages were found in use, under these handles. */
  adopt(runs: HandleRuns): void {
    const { slots } = this.#parts
    const { firsts } = runs
    for (let run = 0; run < firsts.length; run++) slots.adopt(firsts[run]!, runs.countOf(run))
  }

  /** The same of metadata. */
  adoptMetadata(runs: readonly HandleRun[]): void {
    const { slots, metadata } = this.#parts
    for (const { first, count } of runs) slots.adopt(first, count)
    metadata.add(runs, slots)
  }

  /**
   * All others below `endSlot` have space that nobody uses: it is kept or given back as after a drop, or withheld below
   * `withheldEndSlot`. Once all in use are adopted.
   */
  async adoptRest(endSlot: number, { withheldEndSlot }: { readonly withheldEndSlot: number }): Promise<void> {
    const adopt = (slot: number, end: number) => {
      const between = Math.min(end, Math.max(slot, withheldEndSlot))
      if (between > slot) this.#adoptUnnamed(slot, between - slot, true)
      if (end > between) this.#adoptUnnamed(between, end - between, false)
    }
    const { slots, backed } = this.#parts
    let free = 0
    for (const { first, count } of slots.liveRuns()) {
      const slot = slots.slotOf(first)
      adopt(free, slot)
      backed.set(slot, count)
      free = Math.max(free, slot + count)
      const turn = pace(adoptedBytes)
      if (turn !== undefined) await turn
    }
    adopt(free, endSlot)
  }

  /** No image is damaged any more: what was withheld is free. */
  async releaseWithheld(): Promise<void> {
    for (let from = 0; this.#withheld.count > 0; ) {
      const { first, count } = this.#withheld.runFrom(from, releasedSlots)!
      this.#withheld.clear(first, count)
      this.#parts.letGo(first, count)
      from = first + count
      const turn = pace(adoptedBytes)
      if (turn !== undefined) await turn
    }
  }

  #adoptUnnamed(slot: number, count: number, isWithheld: boolean): void {
    const { slots, backed, letGo } = this.#parts
    const run = { first: Math.max(1, slots.generation) * slots.slotRange + slot, count }
    slots.adopt(run.first, run.count)
    slots.retire([run])
    backed.set(slot, count)
    if (isWithheld) this.#withheld.set(slot, count)
    else letGo(slot, count)
  }
}
