import { type HandleRun, mayWork, onTurn, type TransferOptions } from '@spillway/core'
import { pace, sliceBytes } from '../ground/pace.ts'
import { trace } from '../ground/trace.ts'
import { tracing } from '../ground/tracing.ts'
import { partial, zeroed } from '../table/chunks.ts'
import { asError, type BackingStore, type CopyWaiter } from './backing-store.ts'
import type { BufferState } from './buffer-state.ts'
import { located, lost } from './failures.ts'
import type { ResidentSet } from './resident-set.ts'

/** Who has pages brought in. */
export interface PageInWaiter {
  /** Told once that the page-in is over, and what stopped it; possibly before `start` returns. */
  pageInEnded(error: Error | undefined): void
}

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
  start(
    buffer: BufferState,
    chunks: readonly number[],
    options: TransferOptions,
    waiter: PageInWaiter,
  ): void {
    const heard = tracing.pageIn.isHeard ? this.#traced(buffer, chunks, waiter) : waiter
    const job: PageInJob = { buffer, chunks, options, waiter: heard }
    const { operations } = this.#residents
    for (let index = 0; index < chunks.length; index++) {
      this.#residents.pin(chunks[index]!)
      this.#residents.beginPageIn(chunks[index]!)
    }
    operations.begin()
    operations.keeps(chunks)
    let isReady: boolean
    try {
      isReady = this.#clearAtOnce(chunks)
      if (!isReady && chunks.length === 1 && this.#startOne(job)) return
    } catch (failure) {
      // The application may have taken the memory away.
      this.end(job, asError(failure))
      return
    }
    if (isReady) this.end(job, undefined)
    else this.startAll(job)
  }

  /** Tells of the page-in when it begins, and before its waiter is told when it is over. */
  #traced(buffer: BufferState, chunks: readonly number[], waiter: PageInWaiter): PageInWaiter {
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
    const pageInEnded = (error: Error | undefined) => {
      let arrived = 0
      for (const chunk of chunks) {
        arrived += table.has(chunk, partial) ? table.restoredOf(chunk) : table.pageCount(chunk)
      }
      end(arrived, error)
      waiter.pageInEnded(error)
    }
    return { pageInEnded }
  }

  /** A page-in is over. What is still on its way in now was not begun, or was stopped. */
  end({ buffer, chunks, waiter }: PageInJob, error: Error | undefined): void {
    for (let index = 0; index < chunks.length; index++) {
      this.#residents.endPageIn(chunks[index]!)
      this.#residents.unpin(chunks[index]!, buffer)
    }
    this.#residents.operations.end(chunks)
    this.#residents.unpinned()
    waiter.pageInEnded(error)
  }

  startAll(job: PageInJob): void {
    const end = (error: Error | undefined) => this.end(job, error)
    this.#copyAll(job.buffer, job.chunks, job.options).then(end, (failure) => end(asError(failure)))
  }

  /** Chunks of which nothing is stored are ready at once when there is little to clear; says whether these are. */
  #clearAtOnce(chunks: readonly number[]): boolean {
    const { chunks: table } = this.#residents
    let bytesToClear = 0
    for (let index = 0; index < chunks.length; index++) {
      const chunk = chunks[index]!
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
  #startOne(job: PageInJob): boolean {
    const { chunks: table } = this.#residents
    const chunk = job.chunks[0]!
    const { store } = job.buffer
    if (store === undefined || !store.startsCopies || table.storedAt(chunk) <= 0) return false
    // Only `copyPages` can be told so (T45).
    if (job.options.retryMayFail === true) return false
    const copy = new ChunkCopy(this, this.#residents, job, store)
    if (mayWork(copy.span.byteLength)) copy.start()
    else startOnTurn(copy)
    return true
  }

  /** Counts a copy of pages of a buffer and tells of it. */
  note(buffer: BufferState, store: BackingStore, copied: number, error: Error | undefined): void {
    const { counters, poolName } = this.#residents
    counters.restoreCalls++
    counters.restoredPages += copied
    if (error !== undefined) counters.restoreFailures++
    if (trace.restore.hasSubscribers) {
      trace.restore.publish({
        pool: poolName,
        buffer: buffer.label,
        backup: store.name,
        pages: copied,
        error,
      })
    }
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
    this.note(buffer, store, copied, error)
    if (error === undefined) return undefined
    return located(error, 'restoring', { buffer: buffer.label, page, backup: store.name })
  }
}

/** Chunks of a buffer that are on their way in. */
interface PageInJob {
  readonly buffer: BufferState
  readonly chunks: readonly number[]
  readonly options: TransferOptions
  readonly waiter: PageInWaiter
}

/** The copy of a page-in of one chunk whose handles are adjacent: what has not arrived so far is copied by one call. */
class ChunkCopy implements CopyWaiter {
  readonly span: Uint8Array
  readonly pageCount: number
  readonly #pageIn: PageIn
  readonly #residents: ResidentSet
  readonly #job: PageInJob
  readonly #store: BackingStore
  readonly #firstHandle: number

  constructor(pageIn: PageIn, residents: ResidentSet, job: PageInJob, store: BackingStore) {
    const { chunks, pages } = residents
    const chunk = job.chunks[0]!
    const from = chunks.restoredOf(chunk)
    this.#pageIn = pageIn
    this.#residents = residents
    this.#job = job
    this.#store = store
    this.#firstHandle = chunks.storedAt(chunk) + from
    this.pageCount = chunks.pageCount(chunk) - from
    this.span = pages.slabs.bytes(chunks.frameOf(chunk) + from, this.pageCount)
  }

  start(): void {
    if (!this.#store.startCopy(this.#firstHandle, this.span, this)) this.#pageIn.startAll(this.#job)
  }

  copyEnded(copied: number, error: Error | undefined): void {
    const { chunks } = this.#residents
    const { buffer, chunks: one } = this.#job
    const chunk = one[0]!
    this.#residents.copyBegan(chunk)
    this.#residents.pagesArrived(chunk, copied, copied === this.pageCount)
    this.#pageIn.note(buffer, this.#store, copied, error)
    if (error === undefined) {
      this.#pageIn.end(this.#job, undefined)
      return
    }
    const place = { buffer: buffer.label, page: chunks.firstPageOf(chunk) + chunks.restoredOf(chunk) }
    this.#pageIn.end(this.#job, located(error, 'restoring', { ...place, backup: this.#store.name }))
  }
}

/** Apart, so that nothing is made for a copy that may be started at once. */
function startOnTurn(copy: ChunkCopy): void {
  onTurn(copy.span.byteLength, () => copy.start())
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
