import { BitSet, type HandleRun, imageBlockPages, type PageRun } from '@spillway/core'
import { type ChunkReader, dirty } from '../table/chunks.ts'
import type { PageTableReader } from '../table/page-table.ts'

/**
 * What images know of a buffer: which it was saved as, which blocks of the last one are out of date, and the snapshots of
 * saves under way. The resident set tells it of every change before it happens.
 */
export class ImageState {
  /** By name: the revision that this buffer was loaded from, or was saved as. */
  readonly revisions = new Map<string, string>()
  /** The image that `#changed` is about. */
  base: string | undefined
  /** The label in the head of the base. */
  savedLabel: string | undefined
  /** Blocks whose pages changed since the base was saved, but for those that snapshots have. */
  #changed = new BitSet()
  readonly #table: PageTableReader
  readonly #chunks: ChunkReader
  readonly #snapshots: Snapshot[] = []
  #saved: PromiseWithResolvers<void> | undefined

  constructor(table: PageTableReader, chunks: ChunkReader) {
    this.#table = table
    this.#chunks = chunks
  }

  get isSaving(): boolean {
    return this.#snapshots.length > 0
  }

  /** Resolves when no save is under way. */
  async saved(): Promise<void> {
    while (this.isSaving) {
      this.#saved ??= Promise.withResolvers()
      await this.#saved.promise
    }
  }

  /** A save begins: how the buffer is now is what will be saved. */
  begin(): Snapshot {
    const blocks = this.#changed
    this.#changed = new BitSet()
    // Saves that are under way may fail.
    for (const other of this.#snapshots) union(blocks, other.changed)
    const snapshot = new Snapshot(this.#table, this.#chunks, blocks)
    this.#snapshots.push(snapshot)
    return snapshot
  }

  /** A save is over; gives the handles that nothing names any more. */
  end(
    snapshot: Snapshot,
    savedAs: { readonly name: string; readonly revision: string } | undefined,
  ): HandleRun[] {
    const index = this.#snapshots.indexOf(snapshot)
    this.#snapshots.splice(index, 1)
    if (savedAs === undefined) {
      union(this.#changed, snapshot.changed)
    } else {
      this.revisions.set(savedAs.name, savedAs.revision)
      this.base = savedAs.name
    }
    if (this.#snapshots.length === 0) {
      this.#saved?.resolve()
      this.#saved = undefined
      return snapshot.deferred
    }
    // One that began before may still name them.
    const { deferred } = this.#snapshots[Math.max(0, index - 1)]!
    for (const run of snapshot.deferred) deferred.push(run)
    return []
  }

  // What the resident set tells.

  /** Pages are about to be written to, given up, or stored elsewhere. */
  beforeChange(page: number, count: number): void {
    const first = Math.floor(page / imageBlockPages)
    const end = Math.ceil((page + count) / imageBlockPages)
    this.#changed.set(first, end - first)
    for (const snapshot of this.#snapshots)
      for (let block = first; block < end; block++) snapshot.capture(block)
  }

  /** A chunk was stored whole, or needs not be: those of its pages that have no handles are zeros. */
  stored(chunk: number): void {
    for (const snapshot of this.#snapshots) snapshot.stored(chunk)
  }

  /** A chunk could not be stored; whether a save stores it now, and it stays on its way out. */
  takesOver(chunk: number): boolean {
    const next = this.#snapshots.find((snapshot) => snapshot.isPending(chunk))
    next?.store(chunk)
    return next !== undefined
  }

  /** A chunk is about to be split; `undefined` when no save waits for it. */
  splits(chunk: number): Split | undefined {
    const waiting = this.#snapshots.filter((snapshot) => snapshot.forget(chunk))
    const [next] = waiting
    if (next === undefined) return undefined
    return {
      stored: (page, count) => {
        for (const snapshot of waiting) snapshot.storedPages(page, count)
      },
      onItsWay: (piece) => {
        for (const snapshot of waiting) snapshot.await(piece)
      },
      stores: (piece) => next.store(piece),
    }
  }

  /** Handles that the buffer does not name any more; whether they are to be dropped later. */
  defersDrop(first: number, count: number): boolean {
    const newest = this.#snapshots.at(-1)
    newest?.deferred.push({ first, count })
    return newest !== undefined
  }
}

/** Told of a chunk that is split: what became of its pages. */
export interface Split {
  /** Pages are stored, and have left memory. */
  stored(page: number, count: number): void
  /** Others are a smaller chunk now, which is on its way out. */
  onItsWay(chunk: number): void
  /** Nobody stores it unless a save does. */
  stores(chunk: number): void
}

/**
 * Where the pages of a buffer are, as of one moment. A block is looked at when something in it is about to change, or
 * when it is encoded; until then it is as it was. Chunks that were dirty at the moment are on their way out, so that nobody
 * writes to them, and their handles are added when they are stored.
 */
export class Snapshot {
  /** Blocks that are not as in the base. */
  readonly changed: BitSet
  /** Handles to be dropped when this save and those before it are over. */
  readonly deferred: HandleRun[] = []
  readonly #table: PageTableReader
  readonly #chunks: ChunkReader
  readonly #captured = new Map<number, PageRun[]>()
  /** Chunks that were dirty at the moment and are not stored yet. */
  readonly #pending = new Set<number>()
  /** Those of them that this save is to store, and that are not handed over yet. */
  readonly #toStore = new Set<number>()
  #news: PromiseWithResolvers<void> | undefined

  constructor(table: PageTableReader, chunks: ChunkReader, changed: BitSet) {
    this.#table = table
    this.#chunks = chunks
    this.changed = changed
  }

  get hasPending(): boolean {
    return this.#pending.size > 0
  }

  /** Whether it waits for chunks that are being stored. */
  get hasForeign(): boolean {
    return this.#pending.size > this.#toStore.size
  }

  /** Resolves when something has become of a chunk that is being stored. */
  news(): Promise<void> {
    this.#news ??= Promise.withResolvers()
    return this.#news.promise
  }

  #tellNews(): void {
    this.#news?.resolve()
    this.#news = undefined
  }

  isPending(chunk: number): boolean {
    return this.#pending.has(chunk)
  }

  /** A chunk that is on its way out, whoever stores it: the image needs it. */
  await(chunk: number): void {
    this.#pending.add(chunk)
  }

  /** A chunk that it waits for is to be stored by this save. */
  store(chunk: number): void {
    this.#toStore.add(chunk)
    this.#tellNews()
  }

  /** Chunks to hand over, up to so many pages, at least one where there is any that is not held up. */
  takeBatch(mostPages: number, isHeldUp: (chunk: number) => boolean): number[] {
    const batch: number[] = []
    let pages = 0
    for (const chunk of this.#toStore) {
      const count = this.#chunks.pageCount(chunk)
      if (pages > 0 && pages + count > mostPages) break
      if (isHeldUp(chunk)) continue
      batch.push(chunk)
      pages += count
      this.#toStore.delete(chunk)
    }
    return batch
  }

  /** Does not wait for a chunk any more; whether it did. */
  forget(chunk: number): boolean {
    this.#toStore.delete(chunk)
    const isForgotten = this.#pending.delete(chunk)
    if (isForgotten) this.#tellNews()
    return isForgotten
  }

  /** The save has failed and waits for nothing; gives the chunks that are on their way out and were not handed over. */
  fail(): number[] {
    const left = [...this.#toStore]
    this.#toStore.clear()
    this.#pending.clear()
    this.#tellNews()
    return left
  }

  stored(chunk: number): void {
    if (!this.forget(chunk)) return
    const page = this.#chunks.firstPageOf(chunk)
    this.#chunks.eachRun(chunk, 0, (index, handle, count) => this.#add(page + index, handle, count))
  }

  /** Pages that it waited for left memory one by one. */
  storedPages(page: number, count: number): void {
    for (let at = page; at < page + count; at += this.#table.foundPages) {
      this.#table.look(at, page + count)
      this.#add(at, this.#table.foundHandle, this.#table.foundPages)
    }
  }

  /** Looks at a block now, unless it did before. */
  capture(block: number): void {
    if (!this.#captured.has(block)) this.#captured.set(block, this.#found(block))
  }

  /** The runs of a block in rising order, when all that was dirty is stored. */
  runsOf(block: number): PageRun[] {
    const runs = this.#captured.get(block) ?? this.#found(block)
    runs.sort((one, other) => one.page - other.page)
    return joined(runs)
  }

  /** Pages that were dirty have handles; a block that is not captured finds them by itself. */
  #add(page: number, handle: number, count: number): void {
    if (handle === 0) return
    for (let at = page; at < page + count; ) {
      const block = Math.floor(at / imageBlockPages)
      const end = Math.min(page + count, (block + 1) * imageBlockPages)
      this.#captured.get(block)?.push({ page: at, handle: handle + at - page, count: end - at })
      at = end
    }
  }

  #found(block: number): PageRun[] {
    const table = this.#table
    const runs: PageRun[] = []
    const first = block * imageBlockPages
    const end = Math.min(table.pageCount, first + imageBlockPages)
    for (let page = first; page < end; page += table.foundPages) {
      table.look(page, end)
      const count = table.foundPages
      if (table.found === 'handle') runs.push({ page, handle: table.foundHandle, count })
      else if (table.found === 'chunk') this.#addChunk(runs, table.foundChunk, page, page + count)
    }
    return runs
  }

  /** The pages of a chunk that lie in a block. One that is dirty is not stored yet, or was not there at the moment. */
  #addChunk(runs: PageRun[], chunk: number, page: number, end: number): void {
    const chunks = this.#chunks
    if (chunks.has(chunk, dirty)) return
    const start = chunks.firstPageOf(chunk)
    chunks.eachRun(chunk, page - start, (index, handle, count) => {
      const at = start + index
      if (handle !== 0 && at < end) runs.push({ page: at, handle, count: Math.min(count, end - at) })
    })
  }
}

/** Runs whose pages and handles follow each other as one. */
function joined(runs: readonly PageRun[]): PageRun[] {
  const result: PageRun[] = []
  for (const run of runs) {
    const last = result.at(-1)
    const goesOn =
      last !== undefined && last.page + last.count === run.page && last.handle + last.count === run.handle
    if (goesOn) result[result.length - 1] = { ...last, count: last.count + run.count }
    else result.push(run)
  }
  return result
}

function union(into: BitSet, from: BitSet): void {
  for (
    let run = from.runFrom(0, 2 ** 40);
    run !== undefined;
    run = from.runFrom(run.first + run.count, 2 ** 40)
  )
    into.set(run.first, run.count)
}
