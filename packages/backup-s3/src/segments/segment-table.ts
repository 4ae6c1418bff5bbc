import type { HandleRun } from '@spillway/core'
import { segmentSeed } from './checksum.ts'
import { handleOf, handleStride, pageOf, segmentOf } from './handles.ts'
import { PageBits } from './page-bits.ts'

/**
 * Which handles are live, and where their pages lie.
 *
 *   handle ──▶ root (segment number) ──▶ segment object, slot
 *
 * A root is the segment that a page was first written in; its number is in the handle for ever. As long as it was not
 * compacted the slot is the page number. After a compaction the root's surviving pages lie one after the other in some
 * other object: slot = base + how many survivors come before. So moving a segment costs one bitmap, not an entry a page.
 */

/** One object in the bucket. */
export interface SegmentObject {
  readonly epoch: string
  readonly number: number
  readonly generation: number
  /** What the pages' checksums are bound to. */
  readonly seed: number
  readonly pages: number
  readonly bytes: number
  /** Undefined until the footer was read, after attaching. */
  checksums: Uint32Array | undefined
  livePages: number
  /** Whose pages it holds, in the order of their slots. */
  readonly roots: Set<Root>
  /** What waits to be read from it (restore-queue.ts). */
  waiting: unknown
  /** Reads and compactions under way: the object is not deleted before they end. */
  readers: number
  /** Being read by compaction, or with live pages that cannot be moved. */
  unmovable: boolean
  /** Its index in the manifest that was begun last, if it is in that. */
  manifestPlace: number
  /** Slots whose checksum did not match, twice. */
  quarantined: Set<number> | undefined
}

/** The handles of one segment number. */
export interface Root {
  readonly number: number
  readonly live: PageBits
  livePages: number
  object: SegmentObject
  base: number
  /** The survivors at the time of the move; undefined: never moved. */
  survivors: PageBits | undefined
}

/** Takes adjacent pages in one object. */
export type ExtentVisit = (object: SegmentObject, slot: number, pages: number) => void

/** Makes the record of an object; `checksums` may follow later. */
export function segmentObject(
  epoch: string,
  number: number,
  generation: number,
  pages: number,
  bytes: number,
  checksums: Uint32Array | undefined,
): SegmentObject {
  return {
    epoch,
    number,
    generation,
    seed: segmentSeed(epoch, number, generation),
    pages,
    bytes,
    checksums,
    livePages: 0,
    roots: new Set(),
    waiting: undefined,
    readers: 0,
    unmovable: false,
    manifestPlace: -1,
    quarantined: undefined,
  }
}

export class SegmentTable {
  readonly roots = new Map<number, Root>()
  readonly objects = new Set<SegmentObject>()
  #livePages = 0
  #storedBytes = 0
  /** Called with every object that holds nothing live and is not being read. */
  readonly #whenEmpty: (object: SegmentObject) => void

  constructor(whenEmpty: (object: SegmentObject) => void) {
    this.#whenEmpty = whenEmpty
  }

  get livePages(): number {
    return this.#livePages
  }

  /** Bytes of all objects that are not yet known to be empty. */
  get storedBytes(): number {
    return this.#storedBytes
  }

  /** Takes in an object whose pages get handles of their own. */
  addWritten(object: SegmentObject): void {
    this.addObject(object)
    this.addRoot({
      number: object.number,
      live: PageBits.full(object.pages),
      livePages: object.pages,
      object,
      base: 0,
      survivors: undefined,
    })
  }

  addObject(object: SegmentObject): void {
    this.objects.add(object)
    this.#storedBytes += object.bytes
  }

  addRoot(root: Root): void {
    this.roots.set(root.number, root)
    root.object.roots.add(root)
    root.object.livePages += root.livePages
    this.#livePages += root.livePages
  }

  /** Points a root at the copy of its survivors. */
  moveRoot(root: Root, object: SegmentObject, base: number, survivors: PageBits): void {
    const previous = root.object
    previous.roots.delete(root)
    previous.livePages -= root.livePages
    root.object = object
    root.base = base
    root.survivors = survivors
    object.roots.add(root)
    object.livePages += root.livePages
    this.collect(previous)
  }

  /** The first handle that is not live, or undefined. */
  firstNotLive(handles: readonly HandleRun[]): number | undefined {
    for (const run of handles) {
      let first = run.first
      let left = run.count
      while (left > 0) {
        const page = pageOf(first)
        const count = Math.min(left, handleStride - page)
        const root = this.roots.get(segmentOf(first))
        if (root === undefined) return first
        const missing = root.live.firstMissing(page, count)
        if (missing >= 0) return handleOf(root.number, missing)
        first += count
        left -= count
      }
    }
    return undefined
  }

  /** Where the pages of a run of live handles lie, in order. */
  forEachExtent(run: HandleRun, visit: ExtentVisit): void {
    let first = run.first
    let left = run.count
    while (left > 0) {
      const page = pageOf(first)
      const count = Math.min(left, handleStride - page)
      const root = this.roots.get(segmentOf(first))!
      visit(root.object, slotOf(root, page), count)
      first += count
      left -= count
    }
  }

  /** Drops all these handles, or none: then the first that is not live (or is named twice) is returned. */
  drop(handles: readonly HandleRun[]): number | undefined {
    const cleared: { root: Root; page: number; count: number }[] = []
    let notLive: number | undefined
    for (const run of handles) {
      notLive = this.firstNotLive([run])
      if (notLive !== undefined) break
      let first = run.first
      let left = run.count
      while (left > 0) {
        const page = pageOf(first)
        const count = Math.min(left, handleStride - page)
        const root = this.roots.get(segmentOf(first))!
        root.live.clearRun(page, count)
        cleared.push({ root, page, count })
        first += count
        left -= count
      }
    }
    if (notLive !== undefined) {
      for (const { root, page, count } of cleared) root.live.setRun(page, count)
      return notLive
    }
    for (const { root, count } of cleared) {
      root.livePages -= count
      root.object.livePages -= count
      this.#livePages -= count
      if (root.livePages === 0 && this.roots.get(root.number) === root) {
        this.roots.delete(root.number)
        root.object.roots.delete(root)
      }
      this.collect(root.object)
    }
    return undefined
  }

  /** Runs of all live handles except these, which need not be live. */
  allBut(handles: readonly HandleRun[]): HandleRun[] {
    const kept = new Map<number, PageBits>()
    for (const run of handles) {
      let first = run.first
      let left = run.count
      while (left > 0) {
        const page = pageOf(first)
        const count = Math.min(left, handleStride - page)
        const root = this.roots.get(segmentOf(first))
        first += count
        left -= count
        if (root === undefined) continue
        let bits = kept.get(root.number)
        if (bits === undefined) {
          bits = root.live.copy()
          kept.set(root.number, bits)
        }
        bits.clearRun(page, count)
      }
    }
    const runs: HandleRun[] = []
    for (const root of this.roots.values()) {
      const bits = kept.get(root.number) ?? root.live
      bits.forEachRun((page, count) => runs.push({ first: handleOf(root.number, page), count }))
    }
    return runs
  }

  /** Ends a read. */
  release(object: SegmentObject): void {
    object.readers--
    this.collect(object)
  }

  /** Hands the object over for deletion when nobody needs it any more. */
  collect(object: SegmentObject): void {
    if (object.livePages > 0 || object.readers > 0 || !this.objects.delete(object)) return
    this.#storedBytes -= object.bytes
    this.#whenEmpty(object)
  }
}

function slotOf(root: Root, page: number): number {
  return root.base + (root.survivors === undefined ? page : root.survivors.rank(page))
}
