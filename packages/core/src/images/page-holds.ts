import type { HandleRun } from '../contract.ts'
import type { HandleRuns } from '../handle-runs.ts'

/**
 * Who names each live page of a backup that can hold images: so many holders, and so many images. A page that neither
 * names is to be released. Counts are kept by slot, four bytes each.
 */
export class PageHolds {
  readonly #slotOf: (handle: number) => number
  readonly #holders = new SlotCounts()
  readonly #images = new SlotCounts()
  readonly #toHolders: Addition = { counts: this.#holders, others: this.#images, othersHave: true }
  readonly #toImages: Addition = { counts: this.#images, others: this.#holders, othersHave: false }
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
    for (const { first, count } of runs)
      this.#pagesOnlyOfImages -= this.#addRun(this.#slotOf(first), count, this.#toHolders)
  }

  /** The same, for pages that an image keeps. */
  holdKept(runs: HandleRuns): void {
    this.#pagesOnlyOfImages -= this.#addRuns(runs, this.#toHolders)
  }

  /** Gives an image one hold on each of these live pages. */
  keep(runs: HandleRuns): void {
    this.#pagesOnlyOfImages += this.#addRuns(runs, this.#toImages)
  }

  /** Adds one for each page; says for how many it was the first, and the others had some, or none. */
  #addRuns({ firsts, counts }: HandleRuns, to: Addition): number {
    if (counts === undefined) return this.#addPages(firsts, to)
    let found = 0
    for (let run = 0; run < firsts.length; run++)
      found += this.#addRun(this.#slotOf(firsts[run]), counts[run], to)
    return found
  }

  #addRun(firstSlot: number, count: number, to: Addition): number {
    const { counts, others } = to
    let found = 0
    for (let done = 0; done < count; ) {
      const slot = firstSlot + done
      const first = placeOf(slot)
      const end = Math.min(blockSlots, first + count - done)
      const own = counts.blockOf(slot)
      const other = others.foundBlockOf(slot)
      for (let place = first; place < end; place++)
        if (++own[place] === 1 && other[place] > 0 === to.othersHave) found++
      done += end - first
    }
    return found
  }

  /** The same for single pages, of which there may be millions. */
  #addPages(handles: Float64Array, to: Addition): number {
    const { counts, others } = to
    let found = 0
    let block = -1
    let own: Uint32Array = noCounts
    let other: Uint32Array = noCounts
    for (let index = 0; index < handles.length; index++) {
      const slot = this.#slotOf(handles[index])
      const place = placeOf(slot)
      if (slot - place !== block) {
        block = slot - place
        own = counts.blockOf(slot)
        other = others.foundBlockOf(slot)
      }
      if (++own[place] === 1 && other[place] > 0 === to.othersHave) found++
    }
    return found
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

  /** Returns one hold of an image on each of these pages, all of which it has; gives those that nobody names now. */
  unkeep(runs: HandleRuns): HandleRun[] {
    const released: HandleRun[] = []
    for (let run = 0; run < runs.length; run++) {
      const first = runs.firsts[run]
      const slot = this.#slotOf(first)
      for (let page = 0; page < runs.countOf(run); page++) {
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
const noCounts = new Uint32Array(blockSlots)

/** Where holds are added, and which of their first ones are told: those on pages of which the others have a hold, or have none. */
interface Addition {
  readonly counts: SlotCounts
  readonly others: SlotCounts
  readonly othersHave: boolean
}

/** Of a slot in its block. */
function placeOf(slot: number): number {
  return slot - Math.floor(slot / blockSlots) * blockSlots
}

/** A count for each slot, 0 at first, in blocks that come with the first slot counted in them. */
class SlotCounts {
  readonly #blocks: (Uint32Array | undefined)[] = []

  of(slot: number): number {
    return this.foundBlockOf(slot)[placeOf(slot)]
  }

  /** The counts that a slot's is among, to be changed. */
  blockOf(slot: number): Uint32Array {
    const number = Math.floor(slot / blockSlots)
    this.#blocks[number] ??= new Uint32Array(blockSlots)
    return this.#blocks[number]
  }

  /** The same, to be read. */
  foundBlockOf(slot: number): Uint32Array {
    return this.#blocks[Math.floor(slot / blockSlots)] ?? noCounts
  }

  /** Returns the new count; −1, and it stays 0, where there was nothing to remove. */
  remove(slot: number): number {
    const block = this.#blocks[Math.floor(slot / blockSlots)]
    const count = block?.[placeOf(slot)] ?? 0
    if (block === undefined || count === 0) return -1
    block[placeOf(slot)] = count - 1
    return count - 1
  }

  clear(): void {
    this.#blocks.length = 0
  }
}
