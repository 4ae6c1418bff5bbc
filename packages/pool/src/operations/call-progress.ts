import { SpillwayError, type TransferOptions } from '@spillway/core'
import type { FillOptions } from '../api/options.ts'
import { asError } from '../residency/backing-store.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { located } from '../residency/failures.ts'
import type { ByteVisit } from './byte-range.ts'

/** How far a long call is. */
export interface Progress {
  /** Pages done so far by this call. */
  readonly pages: number
  /** Pages of the buffer. */
  readonly totalPages: number
}

/** What a call did. A partial result is a value: the call can be made again and goes on. */
export interface TransferResult {
  /** Pages that left memory (`backup`), came into memory (`restore`) or were given up (`purge`). */
  readonly pages: number
  /** What stopped it; absent when all was done. */
  readonly error?: Error | undefined
}

export interface BackupOptions extends TransferOptions {
  /** Push the pages to stable storage before answering (T7). Default false. */
  readonly writeback?: boolean | undefined
  /**
   * All or nothing: when one page cannot be stored, all stay in memory (T63). `onProgress` is told of pages that are stored
   * then, and leave when all are. Default false.
   */
  readonly atomic?: boolean | undefined
  /** What it throws ends the call. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

export interface RestoreOptions extends TransferOptions {
  /** What it throws ends the call. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/** What one call has done so far. */
export class CallProgress {
  pages = 0
  error: Error | undefined
  /** Why some pages could not leave, while the others did. */
  staying: Error | undefined
  readonly #buffer: BufferState
  #onProgress: ((progress: Progress) => void) | undefined

  constructor(buffer: BufferState, onProgress: ((progress: Progress) => void) | undefined) {
    this.#buffer = buffer
    this.#onProgress = onProgress
  }

  /** Counts pages that were done. What left again meanwhile and was done twice never takes it past the whole. */
  add(pages: number): void {
    if (pages <= 0) return
    const { pageCount } = this.#buffer
    this.pages = Math.min(this.pages + pages, pageCount)
    try {
      this.#onProgress?.({ pages: this.pages, totalPages: pageCount })
    } catch (failure) {
      // The caller's own mistake ends the caller's call, and nothing else; what is under way still is not told of any more.
      this.#onProgress = undefined
      this.stop(located(asError(failure), 'progress', { buffer: this.#buffer.label }))
    }
  }

  stop(error: Error): void {
    this.error ??= error
  }

  result(last?: Error): TransferResult {
    const error = this.error ?? last
    return error === undefined ? { pages: this.pages } : { pages: this.pages, error }
  }
}

/** `EBUSY` for a page that somebody holds. */
export function pinnedError(buffer: BufferState, page: number): SpillwayError {
  return new SpillwayError('EBUSY', `page ${page} of buffer ${buffer.label} is pinned`, {
    buffer: buffer.label,
    page,
  })
}

/** A source of `totalBytes` that tells how far it is after each piece. */
export function reporting(
  source: ByteVisit,
  totalBytes: number,
  onProgress: FillOptions['onProgress'],
): ByteVisit {
  if (onProgress === undefined) return source
  return (target, position) => {
    source(target, position)
    onProgress({ bytes: position + target.byteLength, totalBytes })
  }
}
