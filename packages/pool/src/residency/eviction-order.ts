import { nowMs } from '@spillway/core'
import { busy, type Chunks, cleanList, dirtyList, passedBy, purgeableList } from '../table/chunks.ts'
import type { BackingStore } from './backing-store.ts'
import { ChunkQueue } from './chunk-queue.ts'
import {
  ChunkUses,
  coldBusy,
  coldClean,
  coldDirty,
  coldPurgeable,
  mostWorth,
  notCold,
  noWorth,
  worthOfOctave,
} from './chunk-uses.ts'

/**
 * Decides what is evicted next, and what is stored before that. The resident set and readers tell it of uses; whoever makes
 * room asks it for chunks.
 *
 *   all chunks ── a hand goes round, and picks the few of each window that are worth least ──▶ the cold end
 *
 *   the cold end    clean ──────────────────▶ evicted
 *                   dirty ─▶ being stored ─▶ clean
 *                     └─ used meanwhile: it is not cold any more
 *
 * Clean and dirty chunks are of one order (`ChunkUses`). Only within the cold end do clean ones leave first; when there
 * are many dirty ones in it, those have to be stored before more chunks are picked.
 *
 * Picking costs a few looks for each chunk picked, however many there are. A chunk that is busy or pinned when its turn comes is
 * left out, and picked again when the hand comes round.
 */
export class EvictionOrder {
  readonly #chunks: Chunks
  readonly #storeOf: (chunk: number) => BackingStore | undefined
  readonly #uses: ChunkUses
  /** The chunk of the last access: going on in it is not a second use. */
  #lastUsed = 0
  readonly #purgeable = new ChunkQueue()
  readonly #clean = new ChunkQueue()
  readonly #dirty = new Map<BackingStore, ChunkQueue>()
  /** Backups that failed and may not be called yet: what only they could store is picked by no window. */
  readonly #leftAlone = new Set<BackingStore>()
  /** Pages of chunks by where they are on their way out. */
  readonly #coldPages = new Float64Array(5)
  /** What the first of the dirty chunks of the cold end was worth when it was picked. */
  #worthOfDirty = 0
  #hand = 0
  /** The hand went all the way round and found nothing: until then, what may leave is cold at once. */
  #isExhausted = false
  /** When backups that are backing off may be called again, so that chunks may leave which could not. */
  #lookAgainAtMs = Number.POSITIVE_INFINITY
  /** How many chunks of a window have each worth. */
  readonly #counts = new Int32Array(mostWorth + 1)
  /** Chunks that a window offers, with their ranks in the upper bits: scratch. */
  #ranked = new Float64Array(0)
  /** What is known of the uses of some chunks of a window: scratch. */
  readonly #words = new Int32Array(looksAtOnce)
  /** What each chunk of a window is worth: scratch. */
  #worths = new Int16Array(0)
  /** Chunks that were used so far, each once however often it is used in a row. */
  uses = 0

  /** `storeOf` tells where a chunk can be stored. */
  constructor(chunks: Chunks, storeOf: (chunk: number) => BackingStore | undefined) {
    this.#chunks = chunks
    this.#uses = new ChunkUses(chunks)
    this.#storeOf = storeOf
  }

  get metadataBytes(): number {
    let bytes =
      this.#worths.byteLength +
      this.#uses.metadataBytes +
      this.#clean.metadataBytes +
      this.#purgeable.metadataBytes
    for (const queue of this.#dirty.values()) bytes += queue.metadataBytes
    return bytes
  }

  /** Pages of the cold end that can leave without I/O. */
  get coldCleanPages(): number {
    return this.#coldPages[coldClean]!
  }

  /** Pages of the cold end that have to be stored before they leave. */
  get coldDirtyPages(): number {
    return this.#coldPages[coldDirty]!
  }

  /** Whether a chunk is of the cold end. */
  isCold(chunk: number): boolean {
    return this.#uses.coldOf(chunk) !== notCold
  }

  // What happens to chunks.

  /** A chunk came into memory. Says whether it would have stayed there with twice the memory. */
  entered(chunk: number): boolean {
    return this.#uses.enter(chunk, this.#chunks.ownerOf(chunk), this.#chunks.firstPageOf(chunk))
  }

  /** A chunk is what remains in memory of a larger one. */
  splitOff(chunk: number, whole: number): void {
    this.#uses.enterLike(chunk, whole)
    if (this.#uses.coldOf(whole) !== coldBusy) this.mayLeave(chunk)
    else if (this.#chunks.has(chunk, busy)) this.#setCold(chunk, coldBusy)
    else this.#makeCold(chunk, true)
  }

  /** A chunk is about to leave memory; `remembers`: it may be wanted again. */
  leaving(chunk: number, remembers: boolean): void {
    if (this.#lastUsed === chunk) this.#lastUsed = 0
    this.#warm(chunk)
    this.#uses.leave(chunk, this.#chunks.ownerOf(chunk), this.#chunks.firstPageOf(chunk), remembers)
  }

  /** Somebody used a chunk. */
  used(chunk: number): void {
    if (this.#lastUsed === chunk) return
    this.#lastUsed = chunk
    this.uses++
    if (this.#uses.isKnown(chunk)) return
    this.#chunks.arrive(chunk)
    // What may be purged is given up first, used or not.
    const cold = this.#uses.coldOf(chunk)
    if (cold !== coldPurgeable && cold !== notCold) {
      this.#warm(chunk)
      // There is one now that the hand would find.
      this.#isExhausted = false
    }
    this.#uses.use(chunk)
  }

  /** A chunk is written to for the first time since it came in. */
  written(chunk: number): void {
    this.#uses.write(chunk)
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

  /** Nobody will want a chunk soon, whatever was said of it before: it is the next to leave, if it may. */
  unwanted(chunk: number): void {
    if (this.#uses.coldOf(chunk) === coldPurgeable || this.#uses.coldOf(chunk) === coldBusy) return
    this.#warm(chunk)
    this.#makeCold(chunk, true)
  }

  /** A chunk may leave now, or may be given up: nobody pins it any more, or its buffer says so. */
  mayLeave(chunk: number): void {
    const isPurgeable = this.#chunks.listOf(chunk) === purgeableList
    if (isPurgeable === (this.#uses.coldOf(chunk) === coldPurgeable)) {
      if (this.#isExhausted && !isPurgeable) this.#makeCold(chunk)
      return
    }
    this.#warm(chunk)
    if (isPurgeable) this.#add(this.#purgeable, chunk, coldPurgeable)
    else if (this.#isExhausted) this.#makeCold(chunk)
  }

  /**
   * All of a chunk is stored, and it stays: if `takeDirty` gave it, or would have, it is the next to leave, unless it was used
   * meanwhile.
   */
  stored(chunk: number): void {
    const cold = this.#uses.coldOf(chunk)
    if (cold !== coldBusy && cold !== coldDirty) return
    this.#warm(chunk)
    this.#makeCold(chunk)
  }

  /** A chunk was not stored after all: it keeps its place (B12). */
  notStored(chunk: number): void {
    if (this.#uses.coldOf(chunk) !== coldBusy) {
      this.mayLeave(chunk)
      return
    }
    this.#warm(chunk)
    this.#makeCold(chunk, true)
  }

  /** A backup fails: what was to be stored in it stays where it is. */
  leaveAlone(store: BackingStore): void {
    this.#leftAlone.add(store)
    const queue = this.#dirty.get(store)
    if (queue === undefined) return
    this.#dirty.delete(store)
    while (queue.length > 0) {
      const entry = queue.shift()
      if (this.#uses.isCurrent(entry, coldDirty)) this.#warm(entry % chunkRange)
    }
    this.#isExhausted = false
  }

  /** A backup works again: chunks that could not leave may be able to. */
  lookAgain(): void {
    this.#isExhausted = false
  }

  // What leaves.

  /** A purgeable chunk that nobody uses, or 0. */
  takePurgeable(): number {
    for (let left = this.#purgeable.length; left > 0; left--) {
      const entry = this.#purgeable.shift()
      if (!this.#uses.isCurrent(entry, coldPurgeable)) continue
      const chunk = entry % chunkRange
      if (this.#chunks.listOf(chunk) === purgeableList && !this.#chunks.has(chunk, busy)) return chunk
      // It is pinned, or its I/O ends soon.
      this.#purgeable.push(entry)
    }
    return 0
  }

  /**
   * The clean chunk that is to be evicted next, or 0. `storesFirst`: while many chunks of the cold end have to be stored,
   * there is none, so that clean ones which are worth more stay.
   */
  takeClean(storesFirst: boolean): number {
    for (;;) {
      while (this.#clean.length > 0) {
        const entry = this.#clean.shift()
        if (!this.#uses.isCurrent(entry, coldClean)) continue
        const chunk = entry % chunkRange
        this.#warm(chunk)
        if (this.#chunks.listOf(chunk) !== cleanList || this.#chunks.has(chunk, busy)) {
          // It is as cold as before, but dirty again: its stored copy was given up.
          this.#makeCold(chunk)
        } else if (storesFirst && this.#isTooGood(chunk)) {
          this.#makeCold(chunk, true)
          return 0
        } else {
          return chunk
        }
      }
      if (storesFirst && this.coldDirtyPages >= this.#mostColdPages) return 0
      if (!this.#pick()) return 0
    }
  }

  /** Picks until the cold end has so many pages, if there are as many. */
  pickCold(pages: number): void {
    while (this.coldCleanPages + this.coldDirtyPages < pages && this.#pick());
  }

  /** The backup that has most to store of the cold end, of those that `mayCall`. */
  storeOfDirty(mayCall: (store: BackingStore) => boolean): BackingStore | undefined {
    let found: BackingStore | undefined
    let most = 0
    for (const [store, queue] of this.#dirty) {
      if (queue.length === 0) this.#dirty.delete(store)
      if (queue.length <= most || !mayCall(store)) continue
      found = store
      most = queue.length
    }
    return found
  }

  /** A dirty chunk of a backup that is to be stored next, of at most so many pages, or 0. Told later: `stored`, `notStored`, `leaving`. */
  takeDirty(store: BackingStore, mostPages: number): number {
    const queue = this.#dirty.get(store)
    while (queue !== undefined && queue.length > 0) {
      const entry = queue.shift()
      if (!this.#uses.isCurrent(entry, coldDirty)) continue
      const chunk = entry % chunkRange
      if (this.#chunks.pageCount(chunk) > mostPages) {
        queue.unshift(entry)
        return 0
      }
      this.#warm(chunk)
      const isReady = this.#chunks.listOf(chunk) === dirtyList && !this.#chunks.has(chunk, busy)
      if (isReady && this.#storeOf(chunk) === store) {
        this.#setCold(chunk, coldBusy)
        return chunk
      }
      // It is clean by now, or belongs to another backup: its number is used again, or its buffer's backup was replaced.
      this.#makeCold(chunk)
    }
    return 0
  }

  // The cold end.

  /** Pages that may leave, now or once they are stored. */
  get #evictablePages(): number {
    const { listPages } = this.#chunks
    return listPages[cleanList]! + listPages[dirtyList]!
  }

  /** So many dirty pages wait to be stored before more chunks are picked: a part of all, and of a small pool a few chunks. */
  get #mostColdPages(): number {
    const pages = this.#evictablePages
    return Math.max(pages / coldShare, (leastColdChunks * pages) / Math.max(1, this.#chunks.count))
  }

  /** Whether a clean chunk, where a few chunks are much of the pool, is worth twice as much as a dirty one that could be stored. */
  #isTooGood(chunk: number): boolean {
    if (this.coldDirtyPages <= this.#evictablePages / coldShare) return false
    return this.#uses.worthOf(chunk) > this.#worthOfDirty + worthOfOctave
  }

  #setCold(chunk: number, cold: number): void {
    // Going on in it keeps it.
    if (this.#lastUsed === chunk) this.#lastUsed = 0
    this.#uses.setCold(chunk, cold)
    this.#coldPages[cold]! += this.#chunks.pageCount(chunk)
  }

  /** A chunk is not of the cold end any more. */
  #warm(chunk: number): void {
    const cold = this.#uses.coldOf(chunk)
    if (cold === notCold) return
    this.#coldPages[cold]! -= this.#chunks.pageCount(chunk)
    this.#uses.setCold(chunk, notCold)
  }

  /** A chunk comes to the cold end, if it may leave: the next to go, or the last. Says whether it did. */
  #makeCold(chunk: number, isNext = false): boolean {
    const list = this.#chunks.listOf(chunk)
    if (this.#chunks.has(chunk, busy) || this.#uses.coldOf(chunk) !== notCold) return false
    if (list === cleanList) {
      this.#add(this.#clean, chunk, coldClean, isNext)
      return true
    }
    const store = list === dirtyList ? this.#storeOf(chunk) : undefined
    if (store === undefined) return false
    const { backoffMs } = store
    if (backoffMs > 0) {
      this.#lookAgainAtMs = Math.min(this.#lookAgainAtMs, nowMs() + backoffMs)
      return false
    }
    this.#add(this.#queueOf(store), chunk, coldDirty, isNext)
    return true
  }

  #queueOf(store: BackingStore): ChunkQueue {
    let queue = this.#dirty.get(store)
    if (queue === undefined) {
      queue = new ChunkQueue()
      this.#dirty.set(store, queue)
    }
    return queue
  }

  #add(queue: ChunkQueue, chunk: number, cold: number, isNext = false): void {
    this.#setCold(chunk, cold)
    const entry = this.#uses.entryOf(chunk)
    if (isNext) queue.unshift(entry)
    else queue.push(entry)
    if (queue.length > mostEntriesPerChunk * this.#chunks.count + leastWindow) this.#sweep(queue, cold)
  }

  /** Drops entries of chunks that left the queue. */
  #sweep(queue: ChunkQueue, cold: number): void {
    for (let left = queue.length; left > 0; left--) {
      const entry = queue.shift()
      if (this.#uses.isCurrent(entry, cold)) queue.push(entry)
    }
  }

  /** Picks some chunks for the cold end; false when there are none that could leave. */
  #pick(): boolean {
    if (this.#isExhausted) {
      const isMuchCold = this.coldCleanPages + this.coldDirtyPages > this.#mostColdPages
      if (!isMuchCold && nowMs() < this.#lookAgainAtMs) return false
    }
    this.#isExhausted = false
    this.#lookAgainAtMs = Number.POSITIVE_INFINITY
    for (const store of this.#leftAlone) {
      const { backoffMs } = store
      if (backoffMs === 0) this.#leftAlone.delete(store)
      else this.#lookAgainAtMs = Math.min(this.#lookAgainAtMs, nowMs() + backoffMs)
    }
    const { end } = this.#chunks
    const window = Math.min(end, mostWindow, Math.max(leastWindow, end >>> 3))
    for (let looks = 0; looks < end; looks += window) if (this.#pickFrom(window)) return true
    this.#isExhausted = true
    return false
  }

  /** Picks from the next chunks in the order of their numbers those that are worth least. */
  #pickFrom(window: number): boolean {
    const { end } = this.#chunks
    const worths = this.#weigh(window)
    const counts = this.#counts.fill(0)
    for (let looks = 0; looks < window; looks++) {
      const worth = worths[looks]!
      if (worth !== noWorth) counts[worth]!++
    }
    const wanted = Math.ceil(window / looksPerPick)
    // All that are worth less than this, and some that are worth as much.
    let least = 0
    let below = 0
    while (least < mostWorth && below + counts[least]! < wanted) below += counts[least++]!
    let some = wanted - below
    let found = 0
    if (this.#ranked.length < wanted) this.#ranked = new Float64Array(wanted)
    for (let looks = 0; looks < window; looks++) {
      const worth = worths[looks]!
      if (worth === noWorth || worth > least || (worth === least && some-- <= 0)) continue
      const chunk = (this.#hand + looks) % end
      this.#ranked[found++] = this.#uses.rankOf(chunk) * chunkRange + chunk
    }
    this.#hand = (this.#hand + window) % end
    return this.#pickRanked(found)
  }

  /** Picks those that were found, the one that is worth least first; false when none of them could leave after all. */
  #pickRanked(found: number): boolean {
    const ranked = this.#ranked.subarray(0, found).sort()
    let isAny = false
    for (let index = 0; index < found; index++) {
      const chunk = ranked[index]! % chunkRange
      if (!this.#makeCold(chunk)) continue
      isAny = true
      if (this.#uses.coldOf(chunk) === coldDirty && this.coldDirtyPages === this.#chunks.pageCount(chunk))
        this.#worthOfDirty = this.#uses.worthOf(chunk)
    }
    return isAny
  }

  /** What each of the next chunks is worth that could leave, or could be stored; `noWorth` for all others. */
  #weigh(window: number): Int16Array {
    if (this.#worths.length < window) this.#worths = new Int16Array(window)
    const { end } = this.#chunks
    this.#hand %= end
    for (let looks = 0; looks < window; looks += looksAtOnce) {
      const count = Math.min(looksAtOnce, window - looks)
      this.#chunks.copyUses((this.#hand + looks) % end, count, evictable, this.#words)
      this.#uses.worthsOf(this.#words, count, this.#worths, looks)
    }
    if (this.#leftAlone.size > 0) this.#leaveOut(window)
    return this.#worths
  }

  /** Of a window: those are worth no look that only a backup could store which is left alone. */
  #leaveOut(window: number): void {
    const { end } = this.#chunks
    for (let looks = 0; looks < window; looks++) {
      if (this.#worths[looks] === noWorth) continue
      const chunk = (this.#hand + looks) % end
      if (this.#chunks.listOf(chunk) !== dirtyList) continue
      if (this.#leftAlone.has(this.#storeOf(chunk)!)) this.#worths[looks] = noWorth
    }
  }
}

/** Chunks that may leave, now or once they are stored. */
const evictable = { lists: (1 << cleanList) | (1 << dirtyList), without: busy }
/** The cold end is this part of what may leave, and at least some chunks. */
const coldShare = 16
const leastColdChunks = 4
/** Chunks to look at together, at least; an eighth of all where that is more, but no more than take a quarter of a millisecond. */
const leastWindow = 256
const mostWindow = 16384
/** Of these, so many records are read one after the other. */
const looksAtOnce = 128
/** For each chunk that is picked: twice as many cost a sixth of a miss in shared memory, half as many lose hits on loops. */
const looksPerPick = 32
/** Chunks have numbers below this. */
const chunkRange = 2 ** 32
/** A queue with more entries than this is swept. */
const mostEntriesPerChunk = 2
