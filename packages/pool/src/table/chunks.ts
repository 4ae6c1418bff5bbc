import { afterThisCode } from '@spillway/core'
import { type ChunkMemory, ChunkRecords, firstChunk } from './chunk-records.ts'
import type { HandleCursor } from './handle-cursor.ts'
import type { PageTable } from './page-table.ts'
import { StoredHandles, scattered } from './stored-handles.ts'

export { scattered } from './stored-handles.ts'

/**
 * The state of every chunk, and the list that it is on: one place that knows it.
 *
 *   install ─▶ filling ─▶ clean ─▶ dirty ─▶ writeback ─▶ evicted (or clean, when pinned meanwhile)
 *                 │  ▲       └────────────────────────▶ evicted: no I/O, its pages are stored already
 *                 ▼  │
 *               partial            bytes arrived for the first `restored` pages; the next fill goes on from there
 *
 * A chunk is on exactly one list (I10): unevictable while it is pinned, else purgeable, clean or dirty. Being busy does not
 * take it off its list, so a failed eviction leaves everything as it was (B12).
 */

// Flags: nine bits, as many as a record has room for.

/** Written to since its pages were last stored. */
export const dirty = 1
/** What is left of a larger chunk that was split. */
export const piece = 2
/** Bytes are on their way in; nobody may look. */
export const pageIn = 4
/** Bytes are on their way out; nobody may write. */
export const pageOut = 8
/** Only the first `restored` pages hold their bytes. */
export const partial = 16
/** The memory held only zeros when the chunk was taken. */
export const zeroed = 32
/** Its provider does not let its content leave (T34, T82). */
export const unevictable = 64
/** Read ahead, and nobody has come to it yet. */
export const ahead = 128
/** A sequential reader has gone past it, once. */
export const passedBy = 256
export const busy = pageIn | pageOut
/** Bits that keep every reader out. */
export const notReady = pageIn | partial

export const unevictableList = 0
export const dirtyList = 1
export const cleanList = 2
export const purgeableList = 3

export class Chunks extends ChunkRecords {
  /** Pages in chunks that were read ahead, and to which nobody has come yet. */
  aheadPages = 0
  /** Chunks that exist. */
  count = 0
  readonly #kept = new StoredHandles()
  /** Of chunks that are filling or partial, where it is not 0. */
  readonly #restored = new Map<number, number>()
  readonly #waiting = new Map<number, (() => void)[]>()

  /** Bytes of all that grows with the number of chunks. */
  get metadataBytes(): number {
    return this.recordBytes + this.#kept.metadataBytes
  }

  /** Stored pages of resident chunks. */
  countStored(): number {
    return this.#kept.countPages()
  }

  /** A new chunk, pinned once by whoever installs it, so on the unevictable list. */
  add(owner: number, firstPage: number, memory: ChunkMemory): number {
    const chunk = this.insert(owner, firstPage, memory, unevictableList)
    this.addPin(chunk, unevictableList)
    this.count++
    return chunk
  }

  /** Forgets a chunk; its memory and its pages are the caller's business. */
  remove(chunk: number): void {
    this.arrive(chunk)
    this.forgetStored(chunk)
    this.setRestored(chunk, 0)
    this.delete(chunk)
    this.count--
    this.wake(chunk)
  }

  /** A chunk of a buffer that passes the test, or 0; looks at all chunks there are. */
  find(owner: number, test: (chunk: number) => boolean): number {
    for (let chunk = firstChunk; chunk < this.end; chunk++) {
      if (this.ownerOf(chunk) === owner && test(chunk)) return chunk
    }
    return 0
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
  storedAt(chunk: number): number {
    return this.#kept.of(chunk)
  }

  setStoredAt(chunk: number, handle: number): void {
    this.#kept.set(chunk, handle, this.pageCount(chunk))
  }

  /** By chunk, where handles are `scattered`: the handle of each page, 0 for a page of zeros that was never stored. */
  get scatteredHandles(): Map<number, Float64Array> {
    return this.#kept.pages
  }

  /** The handle that page `index` of a chunk is stored under, 0 when it is not stored. */
  storedHandle(chunk: number, index: number): number {
    const first = this.storedAt(chunk)
    if (first === scattered) return this.scatteredHandles.get(chunk)![index]!
    return first === 0 ? 0 : first + index
  }

  /** The handles of a chunk's pages one by one, to be changed: from now on they are `scattered`. */
  scatter(chunk: number): Float64Array {
    const first = this.storedAt(chunk)
    if (first === scattered) return this.scatteredHandles.get(chunk)!
    const handles = Float64Array.from({ length: this.pageCount(chunk) }, (_, index) => first + index)
    this.setStoredAt(chunk, scattered)
    this.scatteredHandles.set(chunk, handles)
    return handles
  }

  /** The pages of a chunk are stored under the next of these handles. */
  storeUnder(chunk: number, handles: HandleCursor): void {
    const count = this.pageCount(chunk)
    const first = handles.takeAdjacent(count)
    if (first !== scattered) {
      this.setStoredAt(chunk, first)
      return
    }
    this.scatteredHandles.set(chunk, handles.take(count))
    this.setStoredAt(chunk, scattered)
  }

  /** The pages of a chunk are stored as its page table, which does not name the chunk yet, says. */
  storeAsIn(table: PageTable, chunk: number): void {
    const first = this.firstPageOf(chunk)
    const end = this.endPageOf(chunk)
    table.look(first, end)
    if (first + table.foundPages === end) {
      this.setStoredAt(chunk, table.found === 'handle' ? table.foundHandle : 0)
      return
    }
    const handles = new Float64Array(end - first)
    for (let page = first; page < end; page += table.foundPages) {
      table.look(page, end)
      if (table.found !== 'handle') continue
      for (let index = 0; index < table.foundPages; index++)
        handles[page - first + index] = table.foundHandle + index
    }
    this.scatteredHandles.set(chunk, handles)
    this.setStoredAt(chunk, scattered)
  }

  /** Nothing of a chunk is stored any more. */
  forgetStored(chunk: number): void {
    if (this.storedAt(chunk) === scattered) this.scatteredHandles.delete(chunk)
    this.setStoredAt(chunk, 0)
  }

  /**
   * Shows the pages of a chunk from page `from` on in runs of adjacent handles, and of pages that are not stored: index in
   * the chunk, handle of the first or 0, how many.
   */
  eachRun(chunk: number, from: number, visit: (index: number, handle: number, length: number) => void): void {
    const first = this.storedAt(chunk)
    const count = this.pageCount(chunk)
    if (first !== scattered) {
      visit(from, first === 0 ? 0 : first + from, count - from)
      return
    }
    const handles = this.scatteredHandles.get(chunk)!
    for (let index = from; index < count; ) {
      const length = runLength(handles, index)
      visit(index, handles[index]!, length)
      index += length
    }
  }

  /** The page of a chunk that comes after the next `stored` stored pages of those that have not arrived. */
  pageAfter(chunk: number, stored: number): number {
    let page = this.restoredOf(chunk)
    if (this.storedAt(chunk) !== scattered) return page + stored
    const handles = this.scatteredHandles.get(chunk)!
    for (let left = stored; left > 0; page++) if (handles[page] !== 0) left--
    // Pages that were never stored are zeros already.
    while (page < handles.length && handles[page] === 0) page++
    return page
  }

  /** Pages that hold their bytes already, of a chunk that is filling or partial. */
  restoredOf(chunk: number): number {
    return this.#restored.size === 0 ? 0 : (this.#restored.get(chunk) ?? 0)
  }

  setRestored(chunk: number, pages: number): void {
    if (pages > 0) this.#restored.set(chunk, pages)
    else if (this.#restored.size > 0) this.#restored.delete(chunk)
  }

  /** Calls `call` soon after the chunk's I/O settled, or the chunk is gone; look its page up again then (B9). */
  onSettled(chunk: number, call: () => void): void {
    const waiting = this.#waiting.get(chunk)
    if (waiting === undefined) this.#waiting.set(chunk, [call])
    else waiting.push(call)
  }

  /** The same as a promise. */
  whenSettled(chunk: number): Promise<void> {
    return new Promise((resolve) => this.onSettled(chunk, resolve))
  }

  /** Whoever waits for the chunk goes on in a microtask, so that nobody's half-finished step is seen. */
  wake(chunk: number): void {
    if (this.#waiting.size === 0) return
    const waiting = this.#waiting.get(chunk)
    if (waiting === undefined) return
    this.#waiting.delete(chunk)
    afterThisCode(() => {
      for (const call of waiting) call()
    })
  }
}

/** An empty list with room for one chunk, as most calls need: what is put into `[]` first makes room for 17. */
export function listForOne(): number[] {
  const chunks = [0]
  chunks.pop()
  return chunks
}

/** What everybody may ask of chunks; only the resident set changes them. */
export type ChunkReader = Pick<
  Chunks,
  | 'aheadPages'
  | 'count'
  | 'countStored'
  | 'eachRun'
  | 'end'
  | 'endPageOf'
  | 'endPageUnless'
  | 'find'
  | 'firstPageOf'
  | 'flagsOf'
  | 'frameOf'
  | 'has'
  | 'isPinned'
  | 'pinsOf'
  | 'listOf'
  | 'listPages'
  | 'metadataBytes'
  | 'onSettled'
  | 'orderOf'
  | 'ownerOf'
  | 'pageCount'
  | 'restoredOf'
  | 'storedAt'
  | 'storedHandle'
  | 'whenSettled'
> & { readonly scatteredHandles: ReadonlyMap<number, Float64Array> }

/** How many entries from `index` on are adjacent handles, or all 0. */
function runLength(handles: Float64Array, index: number): number {
  const first = handles[index]!
  const step = first === 0 ? 0 : 1
  let length = 1
  while (index + length < handles.length && handles[index + length] === first + length * step) length++
  return length
}
