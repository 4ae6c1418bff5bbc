import type { HandleRun } from '../contract.ts'

/**
 * Who names each live page of a backup that can hold images: so many holders, and so many images. A page that neither
 * names is to be released. Counts are kept by slot, four bytes each.
 */
export class PageHolds {
  readonly #slotOf: (handle: number) => number
  readonly #holders = new SlotCounts()
  readonly #images = new SlotCounts()
  #pagesOnlyOfImages = 0

  /** `slotOf` gives the slot of a live handle. */
  constructor(slotOf: (handle: number) => number) {
    this.#slotOf = slotOf
  }

  /** Pages that an image names and no holder. */
  get pagesOnlyOfImages(): number {
    return this.#pagesOnlyOfImages
  }

  /** Gives a holder one hold on each of these live pages. */
  hold(runs: readonly HandleRun[]): void {
    for (const { first, count } of runs) {
      const slot = this.#slotOf(first)
      for (let at = slot; at < slot + count; at++) {
        if (this.#holders.add(at) === 1 && this.#images.of(at) > 0) this.#pagesOnlyOfImages--
      }
    }
  }

  /**
   * Returns one hold of a holder on each of these live pages, or none of them and `stale`, the first that has no more. `released` are the
   * pages that nobody names now.
   */
  drop(runs: readonly HandleRun[]): { readonly released: HandleRun[]; readonly stale?: number } {
    const released: HandleRun[] = []
    for (let index = 0; index < runs.length; index++) {
      const { first, count } = runs[index]
      const slot = this.#slotOf(first)
      for (let page = 0; page < count; page++) {
        const left = this.#holders.remove(slot + page)
        if (left < 0) {
          this.hold(runs.slice(0, index))
          if (page > 0) this.hold([{ first, count: page }])
          return { released: [], stale: first + page }
        }
        if (left > 0) continue
        if (this.#images.of(slot + page) > 0) this.#pagesOnlyOfImages++
        else append(released, first + page)
      }
    }
    return { released }
  }

  /** Gives an image one hold on each of these live pages. */
  keep(runs: readonly HandleRun[]): void {
    for (const { first, count } of runs) {
      const slot = this.#slotOf(first)
      for (let at = slot; at < slot + count; at++) {
        if (this.#images.add(at) === 1 && this.#holders.of(at) === 0) this.#pagesOnlyOfImages++
      }
    }
  }

  /** Returns one hold of an image on each of these pages, all of which it has; gives those that nobody names now. */
  unkeep(runs: readonly HandleRun[]): HandleRun[] {
    const released: HandleRun[] = []
    for (const { first, count } of runs) {
      const slot = this.#slotOf(first)
      for (let page = 0; page < count; page++) {
        if (this.#images.remove(slot + page) > 0 || this.#holders.of(slot + page) > 0) continue
        this.#pagesOnlyOfImages--
        append(released, first + page)
      }
    }
    return released
  }

  /** No holder holds anything any more, as after a process ended; gives the pages of `live` that no image names. */
  forgetHolders(live: Iterable<HandleRun>): HandleRun[] {
    this.#holders.clear()
    this.#pagesOnlyOfImages = 0
    const released: HandleRun[] = []
    for (const { first, count } of live) {
      const slot = this.#slotOf(first)
      for (let page = 0; page < count; page++) {
        if (this.#images.of(slot + page) > 0) this.#pagesOnlyOfImages++
        else append(released, first + page)
      }
    }
    return released
  }
}

/** Adds a handle to runs, to the last of them where it follows that. */
function append(runs: HandleRun[], handle: number): void {
  const last = runs.at(-1)
  if (last === undefined || last.first + last.count !== handle) runs.push({ first: handle, count: 1 })
  else (last as { count: number }).count++
}

const blockSlots = 2 ** 14

/** A count for each slot, 0 at first, in blocks that come with the first slot counted in them. */
class SlotCounts {
  readonly #blocks: (Uint32Array | undefined)[] = []

  of(slot: number): number {
    return this.#blocks[Math.floor(slot / blockSlots)]?.[slot % blockSlots] ?? 0
  }

  /** Returns the new count. */
  add(slot: number): number {
    const number = Math.floor(slot / blockSlots)
    let block = this.#blocks[number]
    if (block === undefined) {
      block = new Uint32Array(blockSlots)
      this.#blocks[number] = block
    }
    return ++block[slot % blockSlots]
  }

  /** Returns the new count; −1, and it stays 0, where there was nothing to remove. */
  remove(slot: number): number {
    const block = this.#blocks[Math.floor(slot / blockSlots)]
    const count = block?.[slot % blockSlots] ?? 0
    if (block === undefined || count === 0) return -1
    block[slot % blockSlots] = count - 1
    return count - 1
  }

  clear(): void {
    this.#blocks.length = 0
  }
}
