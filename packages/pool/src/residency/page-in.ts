import { type HandleRun, SpillwayError, type TransferOptions } from '@spillway/core'
import { pace, sliceBytes } from '../ground/pace.ts'
import { trace } from '../ground/trace.ts'
import { zeroed } from '../table/chunks.ts'
import type { BackingStore } from './backing-store.ts'
import type { BufferState } from './buffer-state.ts'
import { located } from './failures.ts'
import type { ResidentSet } from './resident-set.ts'

/**
 * Brings the bytes of chunks into memory that they have already (T41): stored pages are copied in, all others are zeros.
 *
 *   chunks ─▶ calls of whole chunks, up to what the backup handles best ─▶ several calls in flight
 *
 * Each call's result is a prefix, so each chunk knows how many of its pages hold their bytes. A chunk that was stopped
 * half way stays `partial` and goes on from there: no page is copied in twice (T42, T43). The stored copies are kept until
 * the chunk is written to, so evicting it again costs nothing, and nothing is lost whatever happens here (T47).
 */
export class PageIn {
  readonly #residents: ResidentSet

  constructor(residents: ResidentSet) {
    this.#residents = residents
  }

  /**
   * Fills chunks of one buffer that are partial; the caller has pinned them. Resolves to what stopped it, or undefined.
   * The chunks are `filling` from this call on.
   */
  async fill(
    buffer: BufferState,
    chunks: readonly number[],
    options: TransferOptions,
  ): Promise<Error | undefined> {
    for (const chunk of chunks) this.#residents.beginPageIn(chunk)
    let error: Error | undefined
    try {
      const calls = this.#plan(buffer, chunks)
      const zeroing = this.#clearEmptyPages(chunks)
      if (zeroing !== undefined) await zeroing
      error = await this.#run(buffer, calls, options)
    } finally {
      // What is still on its way in when all calls are settled was not begun, or was stopped.
      for (const chunk of chunks) this.#residents.endPageIn(chunk)
    }
    return error
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
    const { chunks, counters } = this.#residents
    counters.restoreCalls++
    for (const chunk of call.chunks) this.#residents.copyBegan(chunk)
    const { signal, retryMayFail } = options
    const { copied, error } = await store.copyPages(call.handles, call.spans, call.pages, {
      signal,
      retryMayFail,
    })
    counters.restoredPages += copied
    if (trace.restore.hasSubscribers) {
      const { poolName: pool } = this.#residents
      trace.restore.publish({ pool, buffer: buffer.label, backup: store.name, pages: copied, error })
    }
    let left = copied
    let failedPage: number | undefined
    for (let index = 0; index < call.chunks.length; index++) {
      const chunk = call.chunks[index]!
      const stored = call.storedPages[index]!
      const got = Math.min(left, stored)
      left -= got
      this.#residents.pagesArrived(chunk, got, got === stored)
      if (got < stored) failedPage ??= chunks.firstPageOf(chunk) + chunks.restoredOf(chunk)
    }
    if (error === undefined) return undefined
    counters.restoreFailures++
    return located(error, 'restoring', { buffer: buffer.label, page: failedPage, backup: store.name })
  }
}

/** Pages are stored, and nobody can say where: an error, and no reason to look again and again. */
function lost({ label }: BufferState): SpillwayError {
  return new SpillwayError('EIO', `buffer ${label} has stored pages and no backup`, { buffer: label })
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
