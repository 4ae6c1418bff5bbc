import {
  ahead,
  busy,
  type Chunks,
  cleanList,
  dirtyList,
  passedBy,
  purgeableList,
  referenced,
} from '../table/chunks.ts'

/**
 * Decides what is evicted next. Whoever makes room asks for purgeable, clean or dirty chunks, coldest first; the resident
 * set and readers tell of uses.
 *
 * Each kind has a list in the order of last use, with a second chance: a chunk that was used since the last walk goes to
 * the warm end instead of leaving. Chunks that are busy are passed over, and keep their places (B12).
 */
export class EvictionOrder {
  /** The chunk of the last access: going on in it is not a second use. */
  lastUsed = 0
  readonly #chunks: Chunks

  constructor(chunks: Chunks) {
    this.#chunks = chunks
  }

  /** Somebody used a chunk. */
  used(chunk: number): void {
    const chunks = this.#chunks
    const flags = chunks.flagsOf(chunk)
    if ((flags & ahead) !== 0) chunks.arrive(chunk)
    else if (this.lastUsed !== chunk && (flags & referenced) === 0) chunks.setFlags(chunk, referenced)
    this.lastUsed = chunk
  }

  /** Somebody came to a chunk that was just brought in: it is at the warm end already, so this is no second use. */
  broughtIn(chunk: number): void {
    this.#chunks.arrive(chunk)
    this.lastUsed = chunk
  }

  /** A chunk was brought in before anybody asked for it. */
  readAhead(chunk: number): void {
    this.#chunks.markAhead(chunk)
  }

  /** A sequential reader has gone past a chunk: it is the next to go, unless it stayed and was used again after that. */
  passed(chunk: number): void {
    const chunks = this.#chunks
    if (chunks.isPinned(chunk) || chunks.has(chunk, passedBy)) return
    chunks.setFlags(chunk, passedBy)
    this.unwanted(chunk)
  }

  /** Nobody will want a chunk soon, whatever was said of it before: it is the next of its kind to leave. */
  unwanted(chunk: number): void {
    this.#chunks.clearFlags(chunk, referenced)
    this.makeColdest(chunk)
  }

  /** A chunk is the next of its kind to be looked at; what is pinned stays where it is. */
  makeColdest(chunk: number): void {
    const chunks = this.#chunks
    if (!chunks.isPinned(chunk)) chunks.moveToCold(chunk, chunks.listOf(chunk))
  }

  /** Shows purgeable chunks; `visit` may give them up, and says whether to go on. */
  eachPurgeable(visit: (chunk: number) => boolean): void {
    this.#walk(purgeableList, true, visit)
  }

  /** Shows the clean chunks that may leave; `visit` may evict them, and says whether to go on. */
  eachClean(visit: (chunk: number) => boolean): void {
    this.#walk(cleanList, false, visit)
  }

  /** Shows the dirty chunks that may be stored and leave; `visit` says whether to go on. */
  eachDirty(visit: (chunk: number) => boolean): void {
    this.#walk(dirtyList, false, visit)
  }

  /** Shows all dirty chunks that are not busy, and takes no second chance from them. */
  eachDirtyAtAll(visit: (chunk: number) => boolean): void {
    this.#walk(dirtyList, true, visit)
  }

  /**
   * Goes through a list once, coldest first, skipping what is busy; a chunk that was used gets its second chance unless
   * `all`. `visit` may take the chunk off the list; it says whether to go on.
   */
  #walk(list: number, all: boolean, visit: (chunk: number) => boolean): void {
    const chunks = this.#chunks
    const last = chunks.previousOf(list)
    if (last === list) return
    for (let chunk = chunks.nextOf(list); ; ) {
      const next = chunks.nextOf(chunk)
      const isLast = chunk === last
      const flags = chunks.flagsOf(chunk)
      if ((flags & busy) === 0) {
        if (!all && (flags & referenced) !== 0) {
          chunks.clearFlags(chunk, referenced)
          chunks.moveTo(chunk, list)
        } else if (!visit(chunk)) {
          return
        }
      }
      if (isLast) return
      chunk = next
    }
  }
}
