import { BitSet, type HandleRun, type SlotAllocator } from '@spillway/core'

/** Slots that hold metadata of images: their handles are no pages'. */
export class MetadataSlots {
  readonly #slots = new BitSet()

  get count(): number {
    return this.#slots.count
  }

  add(runs: readonly HandleRun[], slots: SlotAllocator): void {
    for (const run of runs) this.#slots.set(slots.slotOf(run.first), run.count)
  }

  remove(runs: readonly HandleRun[], slots: SlotAllocator): void {
    for (const run of runs) this.#slots.clear(slots.slotOf(run.first), run.count)
  }

  /** The first of these live handles that is one of metadata. */
  firstOf(runs: readonly HandleRun[], slots: SlotAllocator): number | undefined {
    if (this.count === 0) return undefined
    for (const { first, count } of runs) {
      const slot = slots.slotOf(first)
      if (this.#slots.countIn(slot, count) === 0) continue
      for (let page = 0; page < count; page++) if (this.#slots.has(slot + page)) return first + page
    }
    return undefined
  }
}
