import type { HandleRun, TransferOptions } from '@spillway/core'
import { pace, sliceBytes } from '../ground/pace.ts'
import { trace } from '../ground/trace.ts'
import { filling, notReady, partial, runLength, scattered, zeroed } from '../table/chunks.ts'
import type { Store } from './backing-store.ts'
import type { BufferState } from './buffer-state.ts'
import { located } from './failures.ts'
import type { Residents } from './resident-set.ts'

/**
 * Brings the bytes of chunks into memory that they have already (T41): stored pages are copied in, all others are zeros.
 *
 *   chunks ─▶ calls of whole chunks, up to what the backup handles best ─▶ several calls in flight
 *
 * Each call's result is a prefix, so each chunk knows how many of its pages hold their bytes. A chunk that was stopped
 * half way stays `partial` and goes on from there: no page is copied in twice (T42, T43). The stored copies are kept until
 * the chunk is written to, so evicting it again costs nothing, and nothing is lost whatever happens here (T47).
 */
export class Fill {
  readonly #residents: Residents

  constructor(residents: Residents) {
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
    const { chunks: table } = this.#residents
    for (const chunk of chunks) {
      table.clearFlags(chunk, partial)
      table.setFlags(chunk, filling)
    }
    const calls = this.#plan(buffer, chunks)
    const zeroing = this.#clearEmptyPages(chunks)
    let error: Error | undefined
    try {
      if (zeroing !== undefined) await zeroing
      error = await this.#run(buffer, calls, options)
    } finally {
      for (const chunk of chunks) this.#settle(chunk)
    }
    return error
  }

  /** What is still filling when all calls are settled was not begun, or was stopped. */
  #settle(chunk: number): void {
    const { chunks } = this.#residents
    if (chunks.has(chunk, filling)) {
      const needsStored = chunks.keptOf(chunk) !== 0
      chunks.clearFlags(chunk, filling)
      if (needsStored) chunks.setFlags(chunk, partial)
    }
    chunks.wake(chunk)
  }

  #plan(buffer: BufferState, chunks: readonly number[]): Call[] {
    const { chunks: table } = this.#residents
    const batchPages = buffer.store?.batchPages ?? 1
    const calls: Call[] = []
    let call: Call | undefined
    for (const chunk of chunks) {
      if (table.keptOf(chunk) === 0) continue
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
    const count = chunks.pageCount(chunk)
    const frame = chunks.frameOf(chunk)
    const kept = chunks.keptOf(chunk)
    const from = chunks.restoredOf(chunk)
    let stored = 0
    if (kept !== scattered) {
      addHandles(call.handles, kept + from, count - from)
      call.spans.push(pages.slabs.bytes(frame + from, count - from))
      stored = count - from
    } else {
      const handles = chunks.keptPages.get(chunk)!
      for (let index = from; index < count; ) {
        const length = runLength(handles, index)
        if (handles[index] !== 0) {
          addHandles(call.handles, handles[index]!, length)
          call.spans.push(pages.slabs.bytes(frame + index, length))
          stored += length
        }
        index += length
      }
    }
    call.chunks.push(chunk)
    call.storedPages.push(stored)
    call.pages += stored
  }

  /** Zeros for the pages that are stored nowhere, unless the memory is known to be zeros. */
  #clearEmptyPages(chunks: readonly number[]): Promise<void> | undefined {
    const { chunks: table } = this.#residents
    const unclean = chunks.filter((chunk) => !table.has(chunk, zeroed) && table.keptOf(chunk) <= 0)
    if (unclean.length === 0) return undefined
    return this.#clear(unclean)
  }

  async #clear(chunks: readonly number[]): Promise<void> {
    const { chunks: table, pages } = this.#residents
    for (const chunk of chunks) {
      const count = table.pageCount(chunk)
      const frame = table.frameOf(chunk)
      if (table.keptOf(chunk) === 0) {
        await clearSliced(pages.slabs.bytes(frame, count))
        table.setFlags(chunk, zeroed)
        continue
      }
      const handles = table.keptPages.get(chunk)!
      for (let index = table.restoredOf(chunk); index < count; ) {
        const length = runLength(handles, index)
        if (handles[index] === 0) await clearSliced(pages.slabs.bytes(frame + index, length))
        index += length
      }
    }
  }

  async #run(
    buffer: BufferState,
    calls: readonly Call[],
    options: TransferOptions,
  ): Promise<Error | undefined> {
    const { store } = buffer
    if (calls.length === 0 || store === undefined) return undefined
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
    store: Store,
    call: Call,
    options: TransferOptions,
  ): Promise<Error | undefined> {
    const { chunks, counters } = this.#residents
    counters.restoreCalls++
    for (const chunk of call.chunks) chunks.clearFlags(chunk, zeroed)
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
      if (got === stored) {
        chunks.clearFlags(chunk, notReady)
        chunks.setRestored(chunk, 0)
        continue
      }
      chunks.setRestored(chunk, this.#pageAfter(chunk, chunks.restoredOf(chunk), got))
      failedPage ??= chunks.firstPageOf(chunk) + chunks.restoredOf(chunk)
    }
    if (error === undefined) return undefined
    counters.restoreFailures++
    return located(error, 'restoring', { buffer: buffer.label, page: failedPage, backup: store.name })
  }

  /** The page of a chunk that comes after `stored` stored pages from page `from` on. */
  #pageAfter(chunk: number, from: number, stored: number): number {
    const { chunks } = this.#residents
    if (chunks.keptOf(chunk) !== scattered) return from + stored
    const handles = chunks.keptPages.get(chunk)!
    let page = from
    for (let left = stored; left > 0; page++) if (handles[page] !== 0) left--
    return page
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
