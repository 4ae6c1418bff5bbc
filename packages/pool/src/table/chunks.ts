import { ChunkRecords, listCount } from './chunk-records.ts'
import { KeptHandles, scattered } from './kept-handles.ts'

export { scattered } from './kept-handles.ts'

/**
 * The state of every chunk, and the lists that all chunks are on: one place that knows it.
 *
 *   install ─▶ filling ─▶ clean ─▶ dirty ─▶ writeback ─▶ evicted (or clean, when pinned meanwhile)
 *                 │  ▲       └────────────────────────▶ evicted: no I/O, its pages are stored already
 *                 ▼  │
 *               partial            bytes arrived for the first `restored` pages; the next fill goes on from there
 *
 * A chunk is on exactly one list (I10): unevictable while it is pinned, else purgeable, clean or dirty, each in the
 * order of last use. Being busy does not take it off its list, so a failed eviction leaves the order as it was (B12).
 */

// Flags: nine bits, as many as a record has room for.

/** Written to since its pages were last stored. */
export const dirty = 1
/** Used since reclaim last looked (second chance). */
export const referenced = 2
/** Bytes are on their way in; nobody may look. */
export const filling = 4
/** Bytes are on their way out; nobody may write. */
export const writeback = 8
/** Only the first `restored` pages hold their bytes. */
export const partial = 16
/** The memory held only zeros when the chunk was taken. */
export const zeroed = 32
/** Its provider does not let its content leave (T34, T82). */
export const fixed = 64
/** Read ahead, and nobody has come to it yet. */
export const ahead = 128
/** A sequential reader has gone past it, once. */
export const left = 256
export const busy = filling | writeback
/** Bits that keep every reader out. */
export const notReady = filling | partial

export const unevictable = 0
export const dirtyList = 1
export const cleanList = 2
export const purgeableList = 3

export class Chunks extends ChunkRecords {
  /** Pages in chunks that were read ahead, and to which nobody has come yet. */
  aheadPages = 0
  /** Chunks that exist. */
  count = 0
  readonly #kept = new KeptHandles()
  /** Of chunks that are filling or partial, where it is not 0. */
  readonly #restored = new Map<number, number>()
  readonly #waiting = new Map<number, Wake>()

  /** Bytes of all that grows with the number of chunks. */
  get metadataBytes(): number {
    return this.recordBytes + this.#kept.metadataBytes
  }

  /** Stored pages of resident chunks. */
  countKept(): number {
    return this.#kept.countPages()
  }

  /** A new chunk, pinned once by whoever installs it, so on the unevictable list. */
  add(owner: number, firstPage: number, order: number, frame: number, flags: number): number {
    const chunk = this.insert(owner, firstPage, order, frame, flags, unevictable)
    this.addPin(chunk, unevictable)
    this.count++
    return chunk
  }

  /** Forgets a chunk; its memory and its pages are the caller's business. */
  remove(chunk: number): void {
    this.arrive(chunk)
    if (this.keptOf(chunk) === scattered) this.keptPages.delete(chunk)
    this.setKept(chunk, 0)
    this.setRestored(chunk, 0)
    this.delete(chunk)
    this.count--
    this.wake(chunk)
  }

  /** A chunk of a buffer that passes the test, or 0; looks at all chunks there are. */
  find(owner: number, test: (chunk: number) => boolean): number {
    for (let chunk = listCount; chunk < this.end; chunk++) {
      if (this.ownerOf(chunk) === owner && test(chunk)) return chunk
    }
    return 0
  }

  /**
   * Goes through a list once, coldest first, skipping what is busy; a chunk that was used gets its second chance unless
   * `all`. `visit` may take the chunk off the list; it says whether to go on.
   */
  walk(list: number, all: boolean, visit: (chunk: number) => boolean): void {
    const last = this.previousOf(list)
    if (last === list) return
    for (let chunk = this.nextOf(list); ; ) {
      const next = this.nextOf(chunk)
      const isLast = chunk === last
      const flags = this.flagsOf(chunk)
      if ((flags & busy) === 0) {
        if (!all && (flags & referenced) !== 0) {
          this.clearFlags(chunk, referenced)
          this.moveTo(chunk, list)
        } else if (!visit(chunk)) {
          return
        }
      }
      if (isLast) return
      chunk = next
    }
  }

  /** The chunk was read ahead of whoever will want it. */
  markAhead(chunk: number): void {
    if (this.has(chunk, ahead)) return
    this.setFlags(chunk, ahead)
    this.aheadPages += this.pageCount(chunk)
  }

  /** Somebody came to a chunk, or it is gone. */
  arrive(chunk: number): void {
    if (!this.has(chunk, ahead)) return
    this.clearFlags(chunk, ahead)
    this.aheadPages -= this.pageCount(chunk)
  }

  /** First handle of the stored pages of a chunk that is not dirty; 0 when none is stored, or `scattered`. */
  keptOf(chunk: number): number {
    return this.#kept.of(chunk)
  }

  setKept(chunk: number, handle: number): void {
    this.#kept.set(chunk, handle, this.pageCount(chunk))
  }

  /** By chunk, where handles are `scattered`: the handle of each page, 0 for a page of zeros that was never stored. */
  get keptPages(): Map<number, Float64Array> {
    return this.#kept.pages
  }

  /** The handle that page `index` of a chunk is stored under, 0 when it is not stored. */
  keptHandle(chunk: number, index: number): number {
    const first = this.keptOf(chunk)
    if (first === scattered) return this.keptPages.get(chunk)![index]!
    return first === 0 ? 0 : first + index
  }

  /** The handles of a chunk's pages one by one, to be changed: from now on they are `scattered`. */
  scatter(chunk: number): Float64Array {
    const first = this.keptOf(chunk)
    if (first === scattered) return this.keptPages.get(chunk)!
    const handles = Float64Array.from({ length: this.pageCount(chunk) }, (_, index) => first + index)
    this.setKept(chunk, scattered)
    this.keptPages.set(chunk, handles)
    return handles
  }

  /** Pages that hold their bytes already, of a chunk that is filling or partial. */
  restoredOf(chunk: number): number {
    return this.#restored.size === 0 ? 0 : (this.#restored.get(chunk) ?? 0)
  }

  setRestored(chunk: number, pages: number): void {
    if (pages > 0) this.#restored.set(chunk, pages)
    else if (this.#restored.size > 0) this.#restored.delete(chunk)
  }

  /** Resolves when the chunk's I/O settled or the chunk is gone; look its page up again then (B9). */
  whenSettled(chunk: number): Promise<void> {
    let wake = this.#waiting.get(chunk)
    if (wake === undefined) {
      wake = Promise.withResolvers<void>()
      this.#waiting.set(chunk, wake)
    }
    return wake.promise
  }

  wake(chunk: number): void {
    if (this.#waiting.size === 0) return
    const wake = this.#waiting.get(chunk)
    if (wake === undefined) return
    this.#waiting.delete(chunk)
    wake.resolve()
  }
}

type Wake = PromiseWithResolvers<void>

/** How many entries from `index` on are adjacent handles, or all 0. */
export function runLength(handles: Float64Array, index: number): number {
  const first = handles[index]!
  const step = first === 0 ? 0 : 1
  let length = 1
  while (index + length < handles.length && handles[index + length] === first + length * step) length++
  return length
}
