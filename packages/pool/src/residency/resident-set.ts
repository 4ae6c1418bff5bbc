import type { Pages } from '../memory/pages.ts'
import {
  ahead,
  busy,
  Chunks,
  cleanList,
  dirty,
  dirtyList,
  fixed,
  left,
  partial,
  purgeableList,
  referenced,
  runLength,
  scattered,
  unevictable,
  zeroed,
} from '../table/chunks.ts'
import type { PageTable } from '../table/page-table.ts'
import type { BufferState } from './buffer-state.ts'
import { Counters } from './counters.ts'
import { DeviceMappings } from './device-mappings.ts'
import type { Limit } from './limit.ts'
import { Refaults } from './refaults.ts'

/** Where the memory of an evicted chunk goes. */
export type Destination = 'reuse' | 'idle' | 'system'

/** The same for a chunk that is being stored: `'stay'` leaves it in memory, clean, at the cold end. */
export type StoredDestination = Destination | 'stay'

/**
 * The resident chunks of all buffers: the steps that chunks make, each synchronous and complete in itself, so that nobody
 * ever sees half of one. Tables, lists, memory, charges and counters change together here and nowhere else (I2, I10, I11).
 */
export class Residents {
  readonly poolName: string
  readonly pages: Pages
  readonly chunks = new Chunks()
  readonly limit: Limit
  readonly counters = new Counters()
  readonly refaults = new Refaults()
  readonly mappings: DeviceMappings
  readonly buffers = new Map<number, BufferState>()
  /** The chunk of the last access: going on in it is not a second use. */
  lastChunk = 0
  /** Pages in chunks that somebody holds: pins and running operations. */
  pinnedPages = 0
  /** Pages in chunks that were written to since they were stored. */
  dirtyPages = 0
  /** Pages in chunks whose provider does not let their content leave. */
  fixedPages = 0
  /** Walks under way that give memory up, or make it evictable, as they go: they end by themselves. */
  walksThatFree = 0
  /** Told when chunks became evictable. */
  onUnpin: () => void = () => {}

  constructor(poolName: string, pages: Pages, limit: Limit) {
    this.poolName = poolName
    this.pages = pages
    this.limit = limit
    this.mappings = new DeviceMappings(pages, this.chunks)
  }

  bufferOf(chunk: number): BufferState {
    return this.buffers.get(this.chunks.ownerOf(chunk))!
  }

  /** The memory of a chunk. */
  bytes(chunk: number): Uint8Array {
    return this.pages.slabs.bytes(this.chunks.frameOf(chunk), this.chunks.pageCount(chunk))
  }

  /** Holds a chunk in memory. */
  pin(chunk: number): void {
    this.pinnedPages += this.chunks.addPin(chunk, unevictable)
  }

  /**
   * Lets go of a chunk; the last to do so puts it at the warm end of its list (T66). Whoever has let go of all it held
   * calls `onUnpin`.
   */
  unpin(chunk: number, buffer: BufferState): void {
    const pages = this.chunks.removePin(chunk)
    if (pages === 0) return
    this.pinnedPages -= pages
    this.chunks.moveTo(chunk, this.#listWhenFree(this.chunks.flagsOf(chunk), buffer))
  }

  /** Notes a use of a chunk, for the second chance. */
  touch(chunk: number): void {
    const { chunks } = this
    const flags = chunks.flagsOf(chunk)
    if ((flags & ahead) !== 0) chunks.arrive(chunk)
    else if (this.lastChunk !== chunk && (flags & referenced) === 0) chunks.setFlags(chunk, referenced)
    this.lastChunk = chunk
  }

  /** A sequential reader has gone past a chunk: it is the next to go, unless it stayed and was used again after that. */
  leave(chunk: number): void {
    const { chunks } = this
    if (chunks.isPinned(chunk) || chunks.has(chunk, left)) return
    chunks.clearFlags(chunk, referenced)
    chunks.setFlags(chunk, left)
    chunks.moveToCold(chunk, chunks.listOf(chunk))
  }

  /** Moves a chunk that nobody holds to the list it now belongs to; where it is right already its age stays. */
  relist(chunk: number): void {
    const { chunks } = this
    if (chunks.isPinned(chunk)) return
    const list = this.listOf(chunk)
    if (chunks.listOf(chunk) !== list) chunks.moveTo(chunk, list)
  }

  /** Says that a pinned chunk is being written to: what is stored of it is out of date and is released. */
  markDirty(buffer: BufferState, chunk: number): void {
    const { chunks } = this
    if (chunks.has(chunk, dirty)) return
    this.dropKept(buffer, chunk)
    chunks.clearFlags(chunk, zeroed)
    chunks.setFlags(chunk, dirty)
    this.#countDirty(buffer, chunks.pageCount(chunk))
  }

  /** Says that what is in memory is stored, under the handles that are kept. */
  markClean(chunk: number): void {
    const { chunks } = this
    if (!chunks.has(chunk, dirty)) return
    chunks.clearFlags(chunk, dirty)
    this.#countDirty(this.bufferOf(chunk), -chunks.pageCount(chunk))
  }

  /** Releases what is stored of a chunk whose memory has it too, or that is given up. */
  dropKept(buffer: BufferState, chunk: number): void {
    const { chunks } = this
    const first = chunks.keptOf(chunk)
    if (first === 0) return
    if (first === scattered) {
      for (const handle of chunks.keptPages.get(chunk)!) if (handle !== 0) buffer.store!.drop(handle, 1)
      chunks.keptPages.delete(chunk)
    } else {
      buffer.store!.drop(first, chunks.pageCount(chunk))
    }
    chunks.setKept(chunk, 0)
  }

  /**
   * Makes a chunk for `page` and the non-resident pages around it, of at most 2^order pages; its pages are charged
   * already. The chunk is pinned, and partial with nothing restored: its stored pages, if any, are its kept ones, so that
   * giving up is the same as evicting it. Returns 0 when there is no memory (T25: then nothing changed).
   */
  install(buffer: BufferState, page: number, order: number): number {
    const { pages, chunks } = this
    const { table } = buffer
    const frame = pages.allocate(order, buffer.caching)
    if (frame < 0) return 0
    const taken = pages.takenOrder
    const count = 1 << taken
    this.pinnedPages += count
    const start = page - (page % table.blockPages)
    const first = start + ((page - start) & ~(count - 1))
    let flags = pages.takenZero ? partial | zeroed : partial
    if (!pages.slabs.providerOf(frame).capabilities.swappable) {
      flags |= fixed
      this.fixedPages += count
    }
    const chunk = chunks.add(buffer.id, first, taken, frame, flags)
    table.look(first, first + count)
    if (table.foundPages === count) chunks.setKept(chunk, table.found === 'handle' ? table.foundHandle : 0)
    else this.#keepScattered(table, chunk, first, count)
    table.setChunk(first, count, chunk)
    if (
      chunks.keptOf(chunk) !== 0 &&
      this.refaults.noteRestore(buffer.id, first, count, this.limit.limitPages)
    ) {
      this.counters.refaultedPages += count
    }
    return chunk
  }

  /**
   * Takes a chunk that nobody holds out of memory; its pages are again where they were stored, and empty where they never
   * were. The caller knows that it is not dirty, or that `kept` is up to date.
   */
  evict(chunk: number, destination: Destination): void {
    const { chunks } = this
    const { table } = this.bufferOf(chunk)
    const first = chunks.firstPageOf(chunk)
    const count = chunks.pageCount(chunk)
    const kept = chunks.keptOf(chunk)
    if (kept === 0) {
      table.setEmpty(first, count)
    } else if (kept !== scattered) {
      table.setHandles(first, count, kept)
    } else {
      const handles = chunks.keptPages.get(chunk)!
      for (let index = 0; index < count; ) {
        const length = runLength(handles, index)
        if (handles[index] === 0) table.setEmpty(first + index, length)
        else table.setHandles(first + index, length, handles[index]!)
        index += length
      }
    }
    if (destination === 'reuse') this.refaults.noteEviction(chunks.ownerOf(chunk), first, count)
    this.#giveUp(chunk, destination)
  }

  /** Gives up the content of a chunk that nobody holds, and its memory (T36, T49). */
  discard(chunk: number, destination: Destination): void {
    const { chunks } = this
    const buffer = this.bufferOf(chunk)
    const count = chunks.pageCount(chunk)
    this.dropKept(buffer, chunk)
    buffer.table.setEmpty(chunks.firstPageOf(chunk), count)
    this.#giveUp(chunk, destination)
  }

  /**
   * Splits a chunk that nobody holds after its backup stopped inside it: the first `storedCount` pages leave memory page
   * by page, the rest stays as smaller chunks in the place that the whole had in its list (T33, T38).
   */
  split(chunk: number, storedCount: number): void {
    const { chunks, pages, limit } = this
    const buffer = this.bufferOf(chunk)
    const { table, caching } = buffer
    const count = chunks.pageCount(chunk)
    const first = chunks.firstPageOf(chunk)
    const frame = chunks.frameOf(chunk)
    const owner = chunks.ownerOf(chunk)
    const flags = chunks.flagsOf(chunk) & ~(busy | zeroed | ahead)
    this.mappings.unmap(chunk)
    for (let index = 0; index < storedCount; index++) pages.release(frame + index, 0, caching)
    for (let index = storedCount; index < count; ) {
      // The largest aligned piece that begins here: the lowest bit of the index that is set.
      const size = index & -index
      const piece = chunks.add(owner, first + index, 31 - Math.clz32(size), frame + index, flags)
      chunks.removePin(piece)
      chunks.moveBefore(piece, chunk)
      table.setChunk(first + index, size, piece)
      index += size
    }
    chunks.remove(chunk)
    if ((flags & dirty) !== 0) this.#countDirty(buffer, -storedCount)
    if ((flags & fixed) !== 0) this.fixedPages -= storedCount
    this.counters.splitChunks++
    limit.uncharge(storedCount)
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

  #giveUp(chunk: number, destination: Destination): void {
    const { chunks, pages } = this
    const order = chunks.orderOf(chunk)
    const frame = chunks.frameOf(chunk)
    const caching = this.bufferOf(chunk).caching
    const zero = chunks.has(chunk, zeroed)
    if (chunks.has(chunk, fixed)) this.fixedPages -= 1 << order
    this.markClean(chunk)
    this.mappings.unmap(chunk)
    chunks.remove(chunk)
    if (destination === 'reuse') pages.keep(frame, order, zero, caching)
    else if (destination === 'idle') pages.free(frame, order, zero, caching)
    else pages.release(frame, order, caching)
    this.limit.uncharge(1 << order)
  }

  #countDirty(buffer: BufferState, pages: number): void {
    this.dirtyPages += pages
    buffer.dirtyPages += pages
  }

  #keepScattered(table: PageTable, chunk: number, first: number, count: number): void {
    const handles = new Float64Array(count)
    const end = first + count
    for (let page = first; page < end; page += table.foundPages) {
      table.look(page, end)
      if (table.found !== 'handle') continue
      for (let index = 0; index < table.foundPages; index++)
        handles[page - first + index] = table.foundHandle + index
    }
    this.chunks.setKept(chunk, scattered)
    this.chunks.keptPages.set(chunk, handles)
  }

  /** The list that a chunk belongs to. */
  listOf(chunk: number, buffer: BufferState = this.bufferOf(chunk)): number {
    if (this.chunks.isPinned(chunk)) return unevictable
    return this.#listWhenFree(this.chunks.flagsOf(chunk), buffer)
  }

  #listWhenFree(flags: number, buffer: BufferState): number {
    if (buffer.purgeable) return purgeableList
    if ((flags & dirty) === 0) return cleanList
    return buffer.store !== undefined && (flags & fixed) === 0 ? dirtyList : unevictable
  }
}
