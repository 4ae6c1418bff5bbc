import type { HandleRun } from '@spillway/core'
import type { Pages } from '../memory/pages.ts'
import {
  ahead,
  busy,
  type ChunkReader,
  Chunks,
  dirty,
  notReady,
  pageIn,
  pageOut,
  partial,
  unevictable,
  unevictableList,
  zeroed,
} from '../table/chunks.ts'
import type { HandleCursor } from '../table/handle-cursor.ts'
import type { PageTable } from '../table/page-table.ts'
import type { BackingStore } from './backing-store.ts'
import { BufferList } from './buffer-list.ts'
import type { BufferState } from './buffer-state.ts'
import { makePieces, type PagesOfChunk } from './chunk-pieces.ts'
import { areChecksForced, chunkProblems } from './chunk-rules.ts'
import { Counters } from './counters.ts'
import { DeviceMappings } from './device-mappings.ts'
import { EvictionOrder } from './eviction-order.ts'
import { Operations } from './operations.ts'
import type { PoolLimit } from './pool-limit.ts'
import { Refaults } from './refaults.ts'
import type { Destination, ResidentSetOptions } from './resident-set-options.ts'

/**
 * The resident chunks of all buffers, and the only writer of what is known of them: chunk state, entries of page tables,
 * lists, gauges and charges. Others say with a verb what happened; each verb is synchronous and complete in itself, so that
 * nobody ever sees half of a step (I2, I10, I11).
 *
 *   install ─▶ missing ─▶ beginPageIn ─▶ pagesArrived … endPageIn ─▶ ready ─▶ evict, discard
 *      ▲          │  ▲                        │                       │ ▲
 *   uninstall ◀───┘  └── stopped half way ────┘            markDirty ─┘ │ keepStored, pageOutFailed, pagesLeft
 *                                                     beginPageOut ─────┘
 *
 * Rules that hold between verbs, for each chunk:
 *   - its buffer's page table names it for each of its pages, and no others
 *   - it is on one list: unevictable while it is pinned, or may not leave; else purgeable, clean or dirty
 *   - it is never on its way in and out at once; while it is, it stays on its list (B12)
 *   - what is dirty is stored nowhere: writing to a chunk releases its stored copy
 *   - its pages were charged before it was made, and are uncharged when it is gone
 * In debug mode and in all tests each verb checks them for its chunk, however large the pool; `verify()` checks the whole.
 */
export class ResidentSet {
  readonly poolName: string
  readonly pages: Pages
  /** Calls under way that pin chunks. */
  readonly operations: Operations
  readonly limit: PoolLimit
  readonly counters = new Counters()
  readonly refaults = new Refaults()
  readonly mappings: DeviceMappings
  readonly buffers = new BufferList()
  /** Decides what is evicted next. */
  readonly order: EvictionOrder
  /** Pages in chunks that somebody pins: the application or an operation. */
  pinnedPages = 0
  /** Pages in chunks of this pool; its memory may have chunks of others too. */
  inUsePages = 0
  /** Pins that the application holds. */
  applicationPins = 0
  /** Pages in chunks that were written to since they were stored. */
  dirtyPages = 0
  /** Places for pages whose buffers have dirty pages. */
  readonly dirtyStores = new Set<BackingStore>()
  /** Pages in chunks whose provider does not let their content leave. */
  unevictablePages = 0
  /** Walks under way that give memory up, or make it evictable, as they go: they end by themselves. */
  walksThatFree = 0
  readonly #chunks = new Chunks()
  readonly #checks: boolean
  readonly #onUnpin: () => void

  /** `onUnpin` is told when chunks became evictable. */
  constructor(poolName: string, pages: Pages, limit: PoolLimit, options: ResidentSetOptions = {}) {
    this.poolName = poolName
    this.pages = pages
    this.limit = limit
    this.#checks = options.checks === true || areChecksForced()
    this.#onUnpin = options.onUnpin ?? (() => {})
    this.operations = new Operations(this.#chunks, options.onIdle ?? (() => {}))
    this.mappings = new DeviceMappings(pages, this.#chunks)
    this.order = new EvictionOrder(this.#chunks, (chunk) => {
      // What has lost its memory cannot be stored any more, and must not hold up what can.
      return this.isIntact(chunk) ? this.bufferOf(chunk).store : undefined
    })
  }

  /** What is known of the chunks, to look at. */
  get chunks(): ChunkReader {
    return this.#chunks
  }

  bufferOf(chunk: number): BufferState {
    return this.buffers.get(this.#chunks.ownerOf(chunk))!
  }

  /** The memory of a chunk. */
  bytes(chunk: number): Uint8Array {
    return this.pages.slabs.bytes(this.#chunks.frameOf(chunk), this.#chunks.pageCount(chunk))
  }

  /** Whether a chunk still has its memory: the application may have detached it. */
  isIntact(chunk: number): boolean {
    return this.pages.slabs.isIntact(this.#chunks.frameOf(chunk))
  }

  // Pins and uses.

  /** Keeps a chunk in memory until `unpin`. */
  pin(chunk: number): void {
    this.pinnedPages += this.#chunks.addPin(chunk, unevictableList)
    if (this.#checks) this.#check(chunk)
  }

  /**
   * Lets go of a chunk; the last to do so puts it on the list of its kind (T66). Whoever has let go of all it pinned calls
   * `unpinned`.
   */
  unpin(chunk: number, buffer: BufferState): void {
    if (this.#checks) this.#assert(this.#chunks.isPinned(chunk), chunk, 'unpin of a chunk that nobody pins')
    const pages = this.#chunks.removePin(chunk)
    if (pages === 0) return
    this.pinnedPages -= pages
    this.#chunks.moveTo(chunk, buffer.listWhenFree(this.#chunks.flagsOf(chunk)))
    this.order.mayLeave(chunk)
    if (this.#checks) this.#check(chunk)
  }

  /** All that somebody pinned is let go: claims that wait may be served. */
  unpinned(): void {
    this.#onUnpin()
  }

  /** Moves a chunk that nobody pins to the list it now belongs to. */
  relist(chunk: number): void {
    if (this.#chunks.isPinned(chunk)) return
    const list = this.listOf(chunk)
    if (this.#chunks.listOf(chunk) !== list) {
      this.#chunks.moveTo(chunk, list)
      this.order.mayLeave(chunk)
    }
    if (this.#checks) this.#check(chunk)
  }

  /** The list that a chunk belongs to. */
  listOf(chunk: number, buffer: BufferState = this.bufferOf(chunk)): number {
    if (this.#chunks.isPinned(chunk)) return unevictableList
    return buffer.listWhenFree(this.#chunks.flagsOf(chunk))
  }

  // Dirty and clean.

  /** A pinned chunk is being written to: what is stored of it is out of date and is released. */
  markDirty(buffer: BufferState, chunk: number): void {
    if (this.#chunks.has(chunk, dirty)) return
    this.#becomeDirty(buffer, chunk)
    this.order.written(chunk)
    if (this.#checks) this.#check(chunk)
  }

  /** Somebody writes to a chunk that is ready, in this step, and does not pin it for that. */
  written(buffer: BufferState, chunk: number): void {
    this.order.used(chunk)
    if (this.#chunks.has(chunk, dirty)) return
    this.#becomeDirty(buffer, chunk)
    this.relist(chunk)
  }

  /** What is stored of a chunk that is in memory, unchanged, is released; from now on only memory has it. */
  giveUpStored(chunk: number): void {
    if (this.#chunks.storedAt(chunk) === 0) return
    this.#becomeDirty(this.bufferOf(chunk), chunk)
    this.relist(chunk)
  }

  #becomeDirty(buffer: BufferState, chunk: number): void {
    const [first, count] = [this.#chunks.firstPageOf(chunk), this.#chunks.pageCount(chunk)]
    buffer.images?.beforeChange(first, count)
    this.#releaseStored(buffer, chunk)
    buffer.heal(first, count)
    this.#chunks.clearFlags(chunk, zeroed)
    this.#chunks.setFlags(chunk, dirty)
    this.#countDirty(buffer, count)
  }

  /** Gives a buffer another place for its pages; nothing of it is stored, and none of its chunks is busy. */
  changeStore(buffer: BufferState, store: BackingStore | undefined): void {
    if (buffer.store !== undefined) this.#countDirtyOf(buffer.store, -buffer.dirtyPages)
    buffer.store = store
    if (store !== undefined) this.#countDirtyOf(store, buffer.dirtyPages)
  }

  #countDirtyOf(store: BackingStore, pages: number): void {
    store.dirtyPages += pages
    if (store.dirtyPages === 0) this.dirtyStores.delete(store)
    else if (store.dirtyPages === pages) this.dirtyStores.add(store)
  }

  // The way in.

  /**
   * Makes a chunk for `page` and the non-resident pages around it, of at most 2^order pages; its pages are charged
   * already. The chunk is pinned, and partial with nothing restored: its stored pages, if any, stay its own, so that
   * giving up is the same as evicting it. Returns 0 when there is no memory (T25: then nothing changed).
   */
  install(buffer: BufferState, page: number, order: number): number {
    const { pages } = this
    const chunks = this.#chunks
    const table = tableOf(buffer)
    const frame = pages.allocate(order, buffer.caching)
    if (frame < 0) return 0
    const taken = pages.takenOrder
    const count = 1 << taken
    this.inUsePages += count
    const start = page - (page % table.blockPages)
    const first = start + ((page - start) & ~(count - 1))
    let flags = pages.takenZero ? partial | zeroed : partial
    if (!pages.slabs.providerOf(frame).capabilities.swappable) {
      flags |= unevictable
      this.unevictablePages += count
    }
    this.pinnedPages += count
    const chunk = chunks.add(buffer.id, first, { order: taken, frame, flags })
    chunks.storeAsIn(table, chunk)
    table.setChunk(first, count, chunk)
    const isRefault = this.order.entered(chunk)
    if (chunks.storedAt(chunk) !== 0) {
      this.refaults.noteRestore(count, isRefault, this.limit.limitPages)
      if (isRefault) this.counters.refaultedPages += count
    }
    if (this.#checks) this.#check(chunk)
    return chunk
  }

  /**
   * Undoes `install` for a chunk that nobody else has seen: its pages are again what they were. `converted` says whether
   * its memory has the buffer's caching already (T25).
   */
  uninstall(chunk: number, converted: boolean): void {
    const buffer = this.bufferOf(chunk)
    const { caching } = buffer
    this.unpin(chunk, buffer)
    if (converted) {
      this.evict(chunk, 'idle')
      return
    }
    // Memory that was never converted goes back as what it is.
    buffer.caching = 0
    this.evict(chunk, 'system')
    buffer.caching = caching
  }

  /** The stored pages of a pinned chunk are about to be copied in, and all others cleared; nobody may look at it. */
  beginPageIn(chunk: number): void {
    const chunks = this.#chunks
    if (this.#checks) {
      const isMissing = (chunks.flagsOf(chunk) & (notReady | pageOut)) === partial
      this.#assert(
        isMissing && chunks.isPinned(chunk),
        chunk,
        'page-in of a chunk that is not missing, or not pinned',
      )
    }
    chunks.clearFlags(chunk, partial)
    chunks.setFlags(chunk, pageIn)
    if (this.#checks) this.#check(chunk)
  }

  /** The memory of a chunk on its way in holds only zeros now; none of its pages is stored. */
  memoryCleared(chunk: number): void {
    this.#chunks.setFlags(chunk, zeroed)
  }

  /** From now on a backup may put bytes into the memory of a chunk on its way in. */
  copyBegan(chunk: number): void {
    if (this.#checks)
      this.#assert(this.#chunks.has(chunk, pageIn), chunk, 'a copy into a chunk that is not on its way in')
    this.#chunks.clearFlags(chunk, zeroed)
  }

  /** The next `stored` of the stored pages of a chunk on its way in have arrived; `areAll`: those were the last. */
  pagesArrived(chunk: number, stored: number, areAll: boolean): void {
    const chunks = this.#chunks
    if (this.#checks)
      this.#assert(chunks.has(chunk, pageIn), chunk, 'pages for a chunk that is not on its way in')
    if (areAll) {
      chunks.clearFlags(chunk, notReady)
      chunks.setRestored(chunk, 0)
      this.bufferOf(chunk).heal(chunks.firstPageOf(chunk), chunks.pageCount(chunk))
    } else {
      chunks.setRestored(chunk, chunks.pageAfter(chunk, stored))
    }
    if (this.#checks) this.#check(chunk)
  }

  /** Nothing more comes for a chunk: it is ready, or partial when stored pages did not arrive or it was not cleared. */
  endPageIn(chunk: number): void {
    const chunks = this.#chunks
    if (chunks.has(chunk, pageIn)) {
      chunks.clearFlags(chunk, pageIn)
      if (chunks.storedAt(chunk) !== 0 || !chunks.has(chunk, zeroed)) chunks.setFlags(chunk, partial)
    }
    if (this.#checks) this.#check(chunk)
    chunks.wake(chunk)
  }

  /** The bytes of a pinned, missing chunk are about to be written over, all of them: nothing is copied in. */
  beginOverwrite(chunk: number): void {
    this.beginPageIn(chunk)
  }

  /** All bytes of a chunk are written over: it is ready, and dirty. */
  overwritten(buffer: BufferState, chunk: number): void {
    const chunks = this.#chunks
    if (this.#checks)
      this.#assert(chunks.has(chunk, pageIn), chunk, 'the end of an overwrite that did not begin')
    chunks.clearFlags(chunk, notReady)
    chunks.setRestored(chunk, 0)
    this.markDirty(buffer, chunk)
    chunks.wake(chunk)
  }

  /** A chunk was not written over to its end: what it held before has to be brought in again. */
  overwriteFailed(chunk: number): void {
    const chunks = this.#chunks
    chunks.clearFlags(chunk, pageIn | zeroed)
    chunks.setFlags(chunk, partial)
    chunks.setRestored(chunk, 0)
    if (this.#checks) this.#check(chunk)
    chunks.wake(chunk)
  }

  // The way out.

  /** A dirty chunk is being stored; nobody may write to it. A device must not either: whoever pins it has it mapped again (T35). */
  beginPageOut(chunk: number): void {
    const chunks = this.#chunks
    if (this.#checks) {
      const flags = chunks.flagsOf(chunk)
      this.#assert(
        (flags & (busy | partial | dirty)) === dirty,
        chunk,
        'page-out of a chunk that is not dirty and idle',
      )
    }
    // For an image a chunk is stored although somebody pins it: to read, so that his device may go on with that.
    if (!chunks.isPinned(chunk)) this.mappings.unmap(chunk)
    chunks.setFlags(chunk, pageOut)
    if (this.#checks) this.#check(chunk)
  }

  /** All of a chunk on its way out is stored, under the next of these handles: it is clean. */
  keepStored(chunk: number, handles: HandleCursor): void {
    const chunks = this.#chunks
    if (this.#checks)
      this.#assert(chunks.has(chunk, pageOut), chunk, 'handles for a chunk that is not on its way out')
    const count = chunks.pageCount(chunk)
    chunks.clearFlags(chunk, dirty | pageOut)
    this.#countDirty(this.bufferOf(chunk), -count)
    chunks.storeUnder(chunk, handles)
    this.relist(chunk)
    if (chunks.isPinned(chunk)) this.order.stored(chunk)
    if (this.#checks) this.#check(chunk)
    this.bufferOf(chunk).images?.stored(chunk)
    chunks.wake(chunk)
  }

  /** Nothing was stored of a chunk on its way out, or what was is dropped: it is as it was. */
  pageOutFailed(chunk: number): void {
    if (this.#checks)
      this.#assert(this.#chunks.has(chunk, pageOut), chunk, 'the end of a page-out that did not begin')
    // Nobody may write to it before an image that is being saved has it as it is.
    const isTakenOver = this.bufferOf(chunk).images?.takesOver(chunk) === true
    if (!isTakenOver) this.#chunks.clearFlags(chunk, pageOut)
    this.order.notStored(chunk)
    if (this.#checks) this.#check(chunk)
    if (!isTakenOver) this.#chunks.wake(chunk)
  }

  /** A chunk on its way out, which nobody pins, holds only zeros: it leaves memory, and its pages are empty. */
  leftEmpty(chunk: number, destination: Destination): void {
    const chunks = this.#chunks
    if (this.#checks)
      this.#assert(chunks.has(chunk, pageOut), chunk, 'a chunk leaves as empty that is not on its way out')
    chunks.clearFlags(chunk, pageOut)
    chunks.setFlags(chunk, zeroed)
    this.bufferOf(chunk).images?.stored(chunk)
    chunks.wake(chunk)
    if (destination === 'reuse') this.refaults.noteEviction(chunks.pageCount(chunk))
    this.discard(chunk, destination)
  }

  /**
   * Only the first `stored` pages of a chunk on its way out, which nobody pins, are stored, under the next of these
   * handles: they leave memory, the others stay as smaller chunks (T33, T38).
   */
  pagesLeft(chunk: number, stored: number, handles: HandleCursor): void {
    const { pages } = this
    const chunks = this.#chunks
    if (this.#checks)
      this.#assert(!chunks.isPinned(chunk), chunk, 'pages of a chunk leave that somebody pins')
    const buffer = this.bufferOf(chunk)
    const table = tableOf(buffer)
    const [first, count, frame] = [chunks.firstPageOf(chunk), chunks.pageCount(chunk), chunks.frameOf(chunk)]
    const flags = chunks.flagsOf(chunk) & ~(busy | zeroed | ahead)
    for (let index = 0; index < stored; index++) table.setHandles(first + index, 1, handles.takeOne())
    const splits = buffer.images?.splits(chunk)
    this.mappings.unmap(chunk)
    for (let index = 0; index < stored; index++) pages.release(frame + index, 0, buffer.caching)
    const left = this.#makePieces(chunk, { from: stored, to: count, flags })
    this.#forgetWhole(chunk)
    if ((flags & dirty) !== 0) this.#countDirty(buffer, -stored)
    if ((flags & unevictable) !== 0) this.unevictablePages -= stored
    this.#uncharge(stored)
    if (splits === undefined) return
    splits.stored(first, stored)
    for (const piece of left) {
      this.beginPageOut(piece)
      splits.onItsWay(piece)
      splits.stores(piece)
    }
  }

  /**
   * A chunk on its way out, which nobody pins, becomes smaller ones in its place in its list, all of them on their way out.
   * None goes across a bound, an index of a page in it; returns those before the first bound, between each two, after the last.
   */
  splitOnItsWayOut(chunk: number, bounds: readonly number[]): number[][] {
    const chunks = this.#chunks
    if (this.#checks) this.#assert(!chunks.isPinned(chunk), chunk, 'a chunk is split that somebody pins')
    const splits = this.bufferOf(chunk).images?.splits(chunk)
    const flags = chunks.flagsOf(chunk) & ~(zeroed | ahead)
    const ends = [...bounds, chunks.pageCount(chunk)]
    const parts = ends.map((to, at) => this.#makePieces(chunk, { from: ends[at - 1] ?? 0, to, flags }))
    this.#forgetWhole(chunk)
    if (splits !== undefined) for (const piece of parts.flat()) splits.onItsWay(piece)
    return parts
  }

  /**
   * Takes a chunk that nobody pins out of memory; its pages are again where they are stored, and empty where they never
   * were written. It is not dirty.
   */
  evict(chunk: number, destination: Destination): void {
    const chunks = this.#chunks
    if (this.#checks) {
      const mayLeave = !chunks.isPinned(chunk) && !chunks.has(chunk, busy | dirty)
      this.#assert(mayLeave, chunk, 'eviction of a chunk that is pinned, busy or dirty')
    }
    const table = tableOf(this.bufferOf(chunk))
    const first = chunks.firstPageOf(chunk)
    const count = chunks.pageCount(chunk)
    chunks.eachRun(chunk, 0, (index, handle, length) => {
      if (handle === 0) table.setEmpty(first + index, length)
      else table.setHandles(first + index, length, handle)
    })
    if (destination === 'reuse') this.refaults.noteEviction(count)
    this.#giveUp(chunk, destination)
  }

  /**
   * Takes the pages of a missing chunk that did not arrive out of memory again; those that did become smaller chunks, clean, in
   * its place in its list. Nobody pins it.
   */
  keepArrived(chunk: number): void {
    const chunks = this.#chunks
    const { pages } = this
    const arrived = chunks.restoredOf(chunk)
    if (arrived === 0) {
      this.evict(chunk, 'idle')
      return
    }
    if (this.#checks) {
      const isMissing = (chunks.flagsOf(chunk) & (notReady | pageOut | dirty)) === partial
      this.#assert(isMissing && !chunks.isPinned(chunk), chunk, 'a part of a chunk stays that is in use')
    }
    const buffer = this.bufferOf(chunk)
    const table = tableOf(buffer)
    const count = chunks.pageCount(chunk)
    const first = chunks.firstPageOf(chunk)
    const frame = chunks.frameOf(chunk)
    const flags = chunks.flagsOf(chunk) & unevictable
    this.mappings.unmap(chunk)
    chunks.eachRun(chunk, 0, (index, handle, length) => {
      if (handle === 0) table.setEmpty(first + index, length)
      else table.setHandles(first + index, length, handle)
    })
    this.#makePieces(chunk, { from: 0, to: arrived, flags })
    for (let index = arrived; index < count; index++) pages.release(frame + index, 0, buffer.caching)
    this.#forgetWhole(chunk)
    if (flags !== 0) this.unevictablePages -= count - arrived
    this.#uncharge(count - arrived)
  }

  #makePieces(chunk: number, part: PagesOfChunk): number[] {
    const where = { chunks: this.#chunks, table: tableOf(this.bufferOf(chunk)), order: this.order }
    const pieces = makePieces(where, chunk, part)
    if (this.#checks) for (const piece of pieces) this.#check(piece)
    return pieces
  }

  #forgetWhole(chunk: number): void {
    this.order.leaving(chunk, false)
    this.#chunks.remove(chunk)
    this.counters.splitChunks++
  }

  // Content that is given up.

  /** Gives up the content of a chunk that nobody pins, what is stored of it, and its memory (T36, T49). */
  discard(chunk: number, destination: Destination): void {
    const chunks = this.#chunks
    if (this.#checks) {
      this.#assert(
        !chunks.isPinned(chunk) && !chunks.has(chunk, busy),
        chunk,
        'a chunk is given up that is in use',
      )
    }
    const buffer = this.bufferOf(chunk)
    buffer.images?.beforeChange(chunks.firstPageOf(chunk), chunks.pageCount(chunk))
    this.#releaseStored(buffer, chunk)
    buffer.heal(chunks.firstPageOf(chunk), chunks.pageCount(chunk))
    tableOf(buffer).setEmpty(chunks.firstPageOf(chunk), chunks.pageCount(chunk))
    this.#giveUp(chunk, destination)
  }

  /** Gives up stored pages with adjacent handles that are not in memory. */
  discardStored(buffer: BufferState, page: number, count: number): void {
    const table = tableOf(buffer)
    buffer.images?.beforeChange(page, count)
    table.look(page, page + count)
    this.#drop(buffer, table.foundHandle, count)
    buffer.heal(page, count)
    table.setEmpty(page, count)
  }

  /** Releases what is stored of some pages of a chunk that is not dirty; the caller makes them zeros in memory. */
  giveUpStoredPart(chunk: number, index: number, count: number): void {
    const chunks = this.#chunks
    if (chunks.storedAt(chunk) === 0) return
    const buffer = this.bufferOf(chunk)
    buffer.images?.beforeChange(chunks.firstPageOf(chunk) + index, count)
    const handles = chunks.scatter(chunk)
    for (let at = index; at < index + count; at++) {
      if (handles[at] !== 0) this.#drop(buffer, handles[at]!, 1)
      handles[at] = 0
    }
    if (!handles.some((handle) => handle !== 0)) chunks.forgetStored(chunk)
  }

  /** Releases what is stored of a chunk whose memory has it too, or that is given up. */
  #releaseStored(buffer: BufferState, chunk: number): void {
    const chunks = this.#chunks
    if (chunks.storedAt(chunk) === 0) return
    chunks.eachRun(chunk, 0, (_, handle, length) => {
      if (handle !== 0) this.#drop(buffer, handle, length)
    })
    chunks.forgetStored(chunk)
  }

  /** Nothing of the buffer names these handles any more; an image that is being saved may. */
  #drop(buffer: BufferState, handle: number, count: number): void {
    if (buffer.images?.defersDrop(handle, count) !== true) buffer.store!.drop(handle, count)
  }

  // Content that was stored before there was the buffer.

  /** Pages of a new buffer are stored under adjacent handles. */
  setStored(buffer: BufferState, page: number, { first, count }: HandleRun): void {
    const table = tableOf(buffer)
    for (let done = 0; done < count; ) {
      const length = Math.min(count - done, table.blockEnd(page + done) - page - done)
      table.setHandles(page + done, length, first + done)
      done += length
    }
  }

  /** Pages from `firstPage` on, which were empty, are stored under these handles; where one is 0 the page stays empty. */
  setStoredPages(buffer: BufferState, firstPage: number, handles: Float64Array): void {
    tableOf(buffer).fillHandles(firstPage, handles)
  }

  /** The chunk is gone, and its memory goes to `destination`. */
  #giveUp(chunk: number, destination: Destination): void {
    const { pages } = this
    const chunks = this.#chunks
    const order = chunks.orderOf(chunk)
    const frame = chunks.frameOf(chunk)
    const buffer = this.bufferOf(chunk)
    const { caching } = buffer
    const zero = chunks.has(chunk, zeroed)
    if (chunks.has(chunk, unevictable)) this.unevictablePages -= 1 << order
    if (chunks.has(chunk, dirty)) this.#countDirty(buffer, -(1 << order))
    this.mappings.unmap(chunk)
    this.order.leaving(chunk, destination === 'reuse')
    chunks.remove(chunk)
    if (destination === 'reuse') pages.keep(frame, order, zero, caching)
    else if (destination === 'retained') pages.retain(frame, order, zero, caching)
    else if (destination === 'idle') pages.free(frame, order, zero, caching)
    else pages.release(frame, order, caching)
    this.#uncharge(1 << order)
  }

  /** Pages have left their chunks. */
  #uncharge(pages: number): void {
    this.inUsePages -= pages
    this.limit.uncharge(pages)
  }

  #countDirty(buffer: BufferState, pages: number): void {
    if (buffer.store !== undefined) this.#countDirtyOf(buffer.store, pages)
    this.dirtyPages += pages
    buffer.dirtyPages += pages
  }

  #check(chunk: number): void {
    for (const problem of chunkProblems(this, chunk)) this.#assert(false, chunk, problem)
  }

  /** Throws when something does not hold for a chunk: a defect of the pool, never of its user. */
  #assert(holds: boolean, chunk: number, what: string): void {
    if (!holds) throw new Error(`defect in the pool: ${what} (pool ${this.poolName}, chunk ${chunk})`)
  }
}

/** The page table of a buffer, to write to; all others have it to read. */
function tableOf(buffer: BufferState): PageTable {
  return buffer.table as PageTable
}
