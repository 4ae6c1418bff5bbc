/**
 * The backup contract: all that a pool knows of a place where pages go, and all that a new backend has to write.
 *
 *   pool ── backupPages(spans) ──▶ backup      memory → store; resolves to handles of a prefix of the pages
 *   pool ◀─ copyPages(handles) ─── backup      store → memory; the stored copy stays (T3)
 *   pool ── drop(handles) ───────▶ backup      the stored copy is released (T4)
 *
 * A call that cannot begin rejects and has done nothing: `TypeError` or `RangeError` for misuse, `SpillwayError` with
 * `EBADF` when the backup is closed and `ESTALE` when a handle is not live. A call that began resolves, and its `error`
 * says what stopped it. So a partial result is a value, and nobody loses a page to an exception.
 */

import type { HandleRun, HandleRuns } from './handle-runs.ts'

export type { HandleRun } from './handle-runs.ts'

/** What a backup can do, as frozen data. The pool and the conformance suite branch on this and on nothing else. */
export interface BackupCapabilities {
  /** Size of every page in bytes: a power of two. */
  readonly pageSizeBytes: number
  /** Where the bytes lie, for people and reports: `'memory'`, `'memfd'`, `'file'`, `'s3'`, … */
  readonly medium: string
  /** Pages that one call handles best; a pool fills batches up to it. */
  readonly preferredBatchPages: number
  /** Calls worth having in flight at once. */
  readonly preferredCallsInFlight: number
  /** Whether pages can outlive the process: by their handles, or by an image where there are `images`. */
  readonly persistent: boolean
  /** Whether other processes can attach to the same store. */
  readonly shareable: boolean
  /** Whether `reserve` keeps its promise; otherwise it rejects with `ENOSYS`. */
  readonly reserves: boolean
  /** Whether stored bytes that changed behind the backup's back are told (`EBADMSG`) instead of returned. */
  readonly detectsCorruption: boolean
  /** Whether the bytes are kept at all: false for `nullBackup()` alone. */
  readonly stores: boolean
}

/** Options of a call that moves pages. */
export interface TransferOptions {
  /** Stops the call before its next piece of work; the result then carries `EINTR` and the prefix done so far (T6). */
  readonly signal?: AbortSignal | undefined
  /** Fail rather than try hard: no retry of faults that might pass (T22, T45). */
  readonly retryMayFail?: boolean | undefined
}

export interface BackupPagesOptions extends TransferOptions {
  /** Push the pages to stable storage before answering. Best effort: failures are only counted in `stats()` (T7). */
  readonly writeback?: boolean | undefined
  /** Draw the space from this reservation. */
  readonly reservation?: Reservation | undefined
}

export interface BackupResult {
  /** Handles of a prefix of the pages, in order. One run: the handles are contiguous (T11). Empty: nothing was stored. */
  readonly handles: readonly HandleRun[]
  /** What stopped the call; absent exactly when every page has its handle. */
  readonly error?: Error | undefined
}

export interface CopyResult {
  /** How many pages, from the first on, hold their content. What is in the pages after them is undefined. */
  readonly copied: number
  /** What stopped the call; absent exactly when every page was copied. */
  readonly error?: Error | undefined
}

/** Told of a copy that was started: how many pages, from the first on, hold their content, and what stopped it. */
export type CopyDone = (copied: number, error?: Error) => void

/** Space that nobody else gets until it is used or released. */
export interface Reservation extends AsyncDisposable {
  /** Bytes still reserved. */
  readonly bytes: number
  /** Gives back what was not used; a second call does nothing. */
  release(): Promise<void>
}

/** A block of the body of an image: bytes that mean nothing to the backup. */
export interface ImageBlock {
  /** Its place in the body, from 0. */
  readonly index: number
  /** At most 1 MiB. The caller leaves it alone until the promise settles. */
  readonly bytes: Uint8Array
}

/** An image to be saved, or what is to be changed of one. */
export interface ImageContent {
  /** Blocks in rising order, each index once: all of them, or, after the revision in `since`, those that are new or changed. */
  readonly body: readonly ImageBlock[]
  /**
   * `keeps[i]` are the runs of handles that `body[i]` needs: the image keeps these pages until that block is replaced or the image
   * removed. The caller holds them until the promise settles.
   */
  readonly keeps: readonly Iterable<HandleRun>[]
  /**
   * What this save follows. Not given: whatever has the name is replaced. `null`: nothing may have the name yet. A revision: the
   * image must have that one, and its blocks that are not in `body` stay as they are.
   */
  readonly since?: string | null | undefined
}

/** An image as it was saved. */
export interface LoadedImage {
  /** All blocks, in order. */
  readonly body: readonly Uint8Array[]
  readonly revision: string
  /**
   * By block: the runs that it keeps, in the order in which they were saved; the backup's own memory, to be read only. The caller has one
   * hold more on each of these pages, as often as it is named.
   */
  readonly keeps: readonly HandleRuns[]
  /** How many pages those are. */
  readonly pages: number
}

/**
 * Images: named, durable descriptions of pages, for buffers that outlive the process. A page lives while a holder or an
 * image names it:
 *
 *   holders    backupPages gives one hold, load one on each page of its image, drop returns one
 *   images     save and remove change nothing else
 *
 * Calls run one after the other, in their order. Names have 1 to 200 bytes of UTF-8 and no control
 * characters: `TypeError` or `RangeError` for others. All calls reject with `EBADF` when the backup is closed.
 */
export interface ImageStore {
  /**
   * Resolves to the new revision, which no other save ever gets, when body and pages are on stable storage. After any crash `load`
   * gives the old image or the new one, whole.
   *
   * Rejects with `EEXIST` (the name is taken, or has another revision than `since`), `ENOENT` (`since` names a revision and nothing
   * has the name), `ESTALE` (a handle in `keeps` is not live), `ENOSPC`; the old image stays. Rejects with `EIO` from the first
   * sync that failed on: which of the two is there is seen when the store is opened again.
   */
  save(name: string, image: ImageContent): Promise<string>

  /** Reads the image, and none of its pages. Rejects with `ENOENT` when nothing has the name, `EBADMSG` when it is damaged. */
  load(name: string): Promise<LoadedImage>

  /** All names, sorted. */
  names(): Promise<string[]>

  /** Removes an image, also on a full medium; pages that nobody else names are released. Rejects with `ENOENT`, `EIO` as `save`. */
  remove(name: string): Promise<void>
}

/** Counters every backup keeps; backends add their own. */
export interface BackupStats {
  readonly livePages: number
  readonly backedUpPages: number
  readonly copiedPages: number
  readonly droppedPages: number
  /** Bytes that the medium really holds for this backup, in its own units of allocation where it tells. */
  readonly mediumBytes: number
  /** Writebacks that failed; the data stayed readable (T7). */
  readonly writebackErrors: number
  /** Handles still live when the backup was closed (T10); 0 until then. */
  readonly leakedPages: number
  /** Where there are `images`: how many, and the pages that live only because an image names them. */
  readonly images?: { readonly count: number; readonly onlyPages: number } | undefined
}

export interface Backup extends AsyncDisposable {
  /** Names this backup in errors, statistics and dumps. */
  readonly name: string
  readonly capabilities: BackupCapabilities

  /**
   * Stores pages. Each span is a whole number of pages, adjacent pages in one span; the caller leaves the memory alone
   * until the promise settles. A page is stored whole or not at all.
   */
  backupPages(spans: readonly Uint8Array[], options?: BackupPagesOptions): Promise<BackupResult>

  /**
   * Fills the spans, in order, with the pages that the handles name, and keeps the stored copies (T3). The number of
   * handles is the number of pages in the spans. A page whose checksum does not match stops the call with `EBADMSG`.
   */
  copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options?: TransferOptions,
  ): Promise<CopyResult>

  /**
   * Starts copying the pages of adjacent handles, `first` on, into one span of as many whole pages: `copyPages` without a
   * promise, for misses of a pool. Optional; that it is there is data, like a capability.
   *
   * False: cannot be begun this way now, nothing was done, use `copyPages`, which says why. So it is when the backup is
   * closed, when a handle is not live, and when it would copy more than `sliceBytes` before it returns. Otherwise `done` is
   * called exactly once, with the length of the prefix that arrived and what stopped it, absent exactly when all arrived:
   * before `startCopy` returns where the bytes are at hand, later where they are not. `ESTALE`: dropped under way.
   *
   * It repeats, reads again and quarantines as `copyPages` does. `close` waits for `done`, which finds the backup consistent
   * and may call any of its methods. An error that `done` throws is uncaught and stops nothing else. Where it copies
   * at once, its caller sees to it that the event loop gets its turns. Throws `TypeError` or `RangeError` for misuse.
   */
  startCopy?(first: number, span: Uint8Array, done: CopyDone): boolean

  /**
   * Releases exactly these pages (T4): one hold of the caller on each, where there are images. Rejects with `ESTALE`, and has
   * dropped none, when one of them is not live, or is dropped more often than it is held.
   */
  drop(handles: readonly HandleRun[]): Promise<void>

  /** Bytes that could be stored now: honest, but no promise (T8). */
  bytesAvailable(): Promise<number>

  /** Sets space aside; rejects with `ENOSPC` when there is not that much, `ENOSYS` when this backup cannot promise. */
  reserve(bytes: number): Promise<Reservation>

  /** Named buffers that outlive the process. Optional; that it is there is data, like a capability. */
  readonly images?: ImageStore | undefined

  /** A snapshot of the counters. */
  stats(): BackupStats

  /** Waits for what is in flight and releases all that is not meant to outlive it. A second call does nothing more. */
  close(): Promise<void>
}
