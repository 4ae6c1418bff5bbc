import { type HandleRun, mayWork, onTurn, type TransferOptions } from '@spillway/core'
import { pace, sliceBytes } from '../ground/pace.ts'
import { trace } from '../ground/trace.ts'
import { tracing } from '../ground/tracing.ts'
import { partial, zeroed } from '../table/chunks.ts'
import { asError, type BackingStore } from './backing-store.ts'
import type { BufferState } from './buffer-state.ts'
import { located, lost } from './failures.ts'
import type { ResidentSet } from './resident-set.ts'

/** Told once that a page-in is over, and what stopped it; possibly before `start` returns. */
export type PageInDone = (error: Error | undefined) => void

/**
 * Brings the bytes of chunks into memory that they have already (T41): stored pages are copied in, all others are zeros.
 *
 *   nothing stored, little to clear ─▶ at once
 *   one chunk, adjacent handles ─────▶ startCopy: no promise
 *   anything else, or refused there ─▶ copyPages: calls of whole chunks, up to what the backup handles best, several in flight
 *
 * Chunks under way are pinned by the page-in itself, whoever waits for it, and their memory stays charged until the copy is
 * done. Each result is a prefix, so each chunk knows how many of its pages hold their bytes. One that was stopped half way
 * stays `partial` and goes on from there: no page is copied in twice (T42, T43). The stored copies are kept until the chunk
 * is written to, so evicting it again costs nothing, and nothing is lost whatever happens here (T47).
 */
export class PageIn {
  readonly #residents: ResidentSet

  constructor(residents: ResidentSet) {
    this.#residents = residents
  }

  /** Brings in chunks of one buffer that are partial and pinned. They are on their way in from this call on. */
  start(buffer: BufferState, chunks: readonly number[], options: TransferOptions, done: PageInDone): void {
    if (tracing.pageIn.isHeard) this.#start(buffer, chunks, options, this.#traced(buffer, chunks, done))
    else this.#start(buffer, chunks, options, done)
  }

  /** Tells of the page-in when it begins, and before `done` when it is over. */
  #traced(buffer: BufferState, chunks: readonly number[], done: PageInDone): PageInDone {
    const { chunks: table, pages, poolName } = this.#residents
    let wanted = 0
    for (const chunk of chunks) wanted += table.pageCount(chunk)
    const bytes = wanted * pages.slabs.pageSizeBytes
    const { label, store } = buffer
    const end = tracing.pageIn.begin({
      pool: poolName,
      buffer: label,
      backup: store?.name,
      pages: wanted,
      bytes,
    })
    return (error) => {
      let arrived = 0
      for (const chunk of chunks) {
        arrived += table.has(chunk, partial) ? table.restoredOf(chunk) : table.pageCount(chunk)
      }
      end(arrived, error)
      done(error)
    }
  }

  #start(buffer: BufferState, chunks: readonly number[], options: TransferOptions, done: PageInDone): void {
    const { operations } = this.#residents
    for (const chunk of chunks) {
      this.#residents.pin(chunk)
      this.#residents.beginPageIn(chunk)
    }
    operations.begin()
    operations.keeps(chunks)
    let isReady: boolean
    try {
      isReady = this.#clearAtOnce(chunks)
      if (!isReady && chunks.length === 1 && this.#startOne(buffer, chunks, options, done)) return
    } catch (failure) {
      // The application may have taken the memory away.
      this.#end(buffer, chunks, asError(failure), done)
      return
    }
    if (isReady) this.#end(buffer, chunks, undefined, done)
    else this.#startAll(buffer, chunks, options, done)
  }

  /** What is still on its way in now was not begun, or was stopped. */
  #end(buffer: BufferState, chunks: readonly number[], error: Error | undefined, done: PageInDone): void {
    for (const chunk of chunks) {
      this.#residents.endPageIn(chunk)
      this.#residents.unpin(chunk, buffer)
    }
    this.#residents.operations.end(chunks)
    this.#residents.unpinned()
    done(error)
  }

  #startAll(
    buffer: BufferState,
    chunks: readonly number[],
    options: TransferOptions,
    done: PageInDone,
  ): void {
    const end = (error: Error | undefined) => this.#end(buffer, chunks, error, done)
    this.#copyAll(buffer, chunks, options).then(end, (failure) => end(asError(failure)))
  }

  /** Chunks of which nothing is stored are ready at once when there is little to clear; says whether these are. */
  #clearAtOnce(chunks: readonly number[]): boolean {
    const { chunks: table } = this.#residents
    let bytesToClear = 0
    for (const chunk of chunks) {
      if (table.storedAt(chunk) !== 0) return false
      if (!table.has(chunk, zeroed)) bytesToClear += this.#residents.bytes(chunk).byteLength
    }
    if (bytesToClear > sliceBytes || (bytesToClear > 0 && !mayWork(bytesToClear))) return false
    if (bytesToClear === 0) return true
    for (const chunk of chunks) {
      if (table.has(chunk, zeroed)) continue
      this.#residents.bytes(chunk).fill(0)
      this.#residents.memoryCleared(chunk)
    }
    return true
  }

  /** Copies a chunk with adjacent handles in without a promise, in a later turn when this one was long; false: it cannot. */
  #startOne(
    buffer: BufferState,
    chunks: readonly number[],
    options: TransferOptions,
    done: PageInDone,
  ): boolean {
    const { chunks: table, pages } = this.#residents
    const chunk = chunks[0]!
    const { store } = buffer
    const first = table.storedAt(chunk)
    if (store === undefined || !store.startsCopies || first <= 0) return false
    // Only `copyPages` can be told so (T45).
    if (options.retryMayFail === true) return false
    const from = table.restoredOf(chunk)
    const count = table.pageCount(chunk) - from
    const span = pages.slabs.bytes(table.frameOf(chunk) + from, count)
    const arrived = (copied: number, error: Error | undefined) => {
      this.#residents.copyBegan(chunk)
      this.#residents.pagesArrived(chunk, copied, copied === count)
      const page = error === undefined ? undefined : table.firstPageOf(chunk) + table.restoredOf(chunk)
      this.#end(buffer, chunks, this.#note(buffer, store, copied, { error, page }), done)
    }
    const start = () => {
      if (!store.startCopy(first + from, span, count, arrived)) this.#startAll(buffer, chunks, options, done)
    }
    if (mayWork(span.byteLength)) start()
    else onTurn(span.byteLength, start)
    return true
  }

  /** Counts a copy and tells of it; returns its failure with the place where it happened. */
  #note(
    buffer: BufferState,
    store: BackingStore,
    copied: number,
    { error, page }: { readonly error: Error | undefined; readonly page: number | undefined },
  ): Error | undefined {
    const { counters, poolName } = this.#residents
    counters.restoreCalls++
    counters.restoredPages += copied
    if (trace.restore.hasSubscribers) {
      trace.restore.publish({
        pool: poolName,
        buffer: buffer.label,
        backup: store.name,
        pages: copied,
        error,
      })
    }
    if (error === undefined) return undefined
    counters.restoreFailures++
    return located(error, 'restoring', { buffer: buffer.label, page, backup: store.name })
  }

  async #copyAll(
    buffer: BufferState,
    chunks: readonly number[],
    options: TransferOptions,
  ): Promise<Error | undefined> {
    const calls = this.#plan(buffer, chunks)
    const zeroing = this.#clearEmptyPages(chunks)
    if (zeroing !== undefined) await zeroing
    return this.#run(buffer, calls, options)
  }

  #plan(buffer: BufferState, chunks: readonly number[]): Call[] {
    const { chunks: table } = this.#residents
    const batchPages = buffer.store?.batchPages ?? 1
    const calls: Call[] = []
    let call: Call | undefined
    for (const chunk of chunks) {
      if (table.storedAt(chunk) === 0) continue
      if (call === undefined || call.pages + table.pageCount(chunk) > batchPages) {
        call = { chunks: [], storedPages: [], handles: [], spans: [], pages: 0 }
        calls.push(call)
      }
      this.#add(call, chunk)
    }
    return calls
  }

  #add(call: Call, chunk: number): void {
    const { chunks, pages } = this.#residents
    const frame = chunks.frameOf(chunk)
    let stored = 0
    chunks.eachRun(chunk, chunks.restoredOf(chunk), (index, handle, length) => {
      if (handle === 0) return
      addHandles(call.handles, handle, length)
      call.spans.push(pages.slabs.bytes(frame + index, length))
      stored += length
    })
    call.chunks.push(chunk)
    call.storedPages.push(stored)
    call.pages += stored
  }

  /** Zeros for the pages that are stored nowhere, unless the memory is known to be zeros. */
  #clearEmptyPages(chunks: readonly number[]): Promise<void> | undefined {
    const { chunks: table } = this.#residents
    const unclean = chunks.filter((chunk) => !table.has(chunk, zeroed) && table.storedAt(chunk) <= 0)
    if (unclean.length === 0) return undefined
    return this.#clear(unclean)
  }

  async #clear(chunks: readonly number[]): Promise<void> {
    const { chunks: table, pages } = this.#residents
    for (const chunk of chunks) {
      const count = table.pageCount(chunk)
      const frame = table.frameOf(chunk)
      if (table.storedAt(chunk) === 0) {
        await clearSliced(pages.slabs.bytes(frame, count))
        this.#residents.memoryCleared(chunk)
        continue
      }
      const empty: Uint8Array[] = []
      table.eachRun(chunk, table.restoredOf(chunk), (index, handle, length) => {
        if (handle === 0) empty.push(pages.slabs.bytes(frame + index, length))
      })
      for (const bytes of empty) await clearSliced(bytes)
    }
  }

  async #run(
    buffer: BufferState,
    calls: readonly Call[],
    options: TransferOptions,
  ): Promise<Error | undefined> {
    const { store } = buffer
    if (calls.length === 0) return undefined
    if (store === undefined) return lost(buffer)
    if (calls.length === 1) return this.#copy(buffer, store, calls[0]!, options)
    let next = 0
    let error: Error | undefined
    const worker = async () => {
      while (next < calls.length && error === undefined) {
        const failed = await this.#copy(buffer, store, calls[next++]!, options)
        error ??= failed
      }
    }
    const workers = Math.min(store.callsInFlight, calls.length)
    await Promise.all(Array.from({ length: workers }, worker))
    return error
  }

  async #copy(
    buffer: BufferState,
    store: BackingStore,
    call: Call,
    options: TransferOptions,
  ): Promise<Error | undefined> {
    const { chunks } = this.#residents
    for (const chunk of call.chunks) this.#residents.copyBegan(chunk)
    const { signal, retryMayFail } = options
    const { handles, spans, pages } = call
    const { copied, error } = await store.copyPages(handles, spans, pages, { signal, retryMayFail })
    let left = copied
    let page: number | undefined
    for (let index = 0; index < call.chunks.length; index++) {
      const chunk = call.chunks[index]!
      const stored = call.storedPages[index]!
      const got = Math.min(left, stored)
      left -= got
      this.#residents.pagesArrived(chunk, got, got === stored)
      if (got < stored) page ??= chunks.firstPageOf(chunk) + chunks.restoredOf(chunk)
    }
    return this.#note(buffer, store, copied, { error, page })
  }
}

interface Call {
  readonly chunks: number[]
  /** For each chunk, how many of its pages the call copies. */
  readonly storedPages: number[]
  readonly handles: { first: number; count: number }[]
  readonly spans: Uint8Array[]
  pages: number
}

function addHandles(handles: { first: number; count: number }[], first: number, count: number): void {
  const last = handles.at(-1) as (HandleRun & { count: number }) | undefined
  if (last !== undefined && last.first + last.count === first) last.count += count
  else handles.push({ first, count })
}

/** Clears memory without blocking the event loop. */
async function clearSliced(bytes: Uint8Array): Promise<void> {
  for (let offset = 0; offset < bytes.byteLength; offset += sliceBytes) {
    bytes.fill(0, offset, Math.min(offset + sliceBytes, bytes.byteLength))
    const turn = pace()
    if (turn !== undefined) await turn
  }
}
