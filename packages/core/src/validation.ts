import type { BackupPagesOptions, CopyDone, HandleRun, TransferOptions } from './contract.ts'
import { maxHandle } from './tagging.ts'

/**
 * The checks that every backup makes before it begins, in one place, so that all of them refuse the same things in
 * the same words.
 */

/** The smallest and largest page size. */
export const minPageSizeBytes = 4096
export const maxPageSizeBytes = 2 * 1024 * 1024

/** Throws `RangeError` unless `pageSizeBytes` is a power of two from 4 KiB to 2 MiB. */
export function assertPageSize(pageSizeBytes: number): void {
  const isPowerOfTwo =
    Number.isInteger(pageSizeBytes) && 2 ** Math.round(Math.log2(pageSizeBytes)) === pageSizeBytes
  if (!isPowerOfTwo || pageSizeBytes < minPageSizeBytes || pageSizeBytes > maxPageSizeBytes) {
    throw new RangeError(
      `pageSizeBytes is ${pageSizeBytes}; it must be a power of two from ${minPageSizeBytes} to ${maxPageSizeBytes}`,
    )
  }
}

/** Throws `RangeError` unless `bytes` is a whole number of bytes, 0 or more; `name` says which option it is. */
export function assertByteCount(bytes: number, name: string): void {
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    const most = typeof bytes === 'number' && bytes > Number.MAX_SAFE_INTEGER
    const allowed = most ? `from 0 to 2 ** 53 - 1, ${Number.MAX_SAFE_INTEGER}` : '0 or more'
    throw new RangeError(`${name} is ${printed(bytes)}; it must be a whole number of bytes, ${allowed}`)
  }
}

/**
 * Throws `TypeError` when `options` is no object, has a key that is not in `known`, or a `signal`, `retryMayFail` or
 * `onProgress` that is none: these mean the same everywhere.
 */
export function assertKnownOptions(options: object, known: readonly string[], caller: string): void {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`${caller} takes an object of options; it was given ${printed(options)}`)
  }
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      throw new TypeError(`${caller} has no option "${key}"; it knows ${known.join(', ')}`)
    }
    const value: unknown = options[key as keyof typeof options]
    if (value === undefined) continue
    if (key === 'signal') assertSignal(value)
    if (key === 'retryMayFail') assertFlag(value, key)
    if (key === 'onProgress' && typeof value !== 'function') {
      throw new TypeError(`onProgress is ${printed(value)}; it must be a function`)
    }
  }
}

function assertSignal(signal: unknown): void {
  if (typeof (signal as AbortSignal | null)?.aborted === 'boolean') return
  throw new TypeError(`signal is ${String(signal)}; it must be an AbortSignal`)
}

/** What was given in place of a backup, for an error; for a promise of one, what to do. */
export function printedNoBackup(value: unknown): string {
  const isPromise = typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function'
  return isPromise ? 'a promise: await it' : printed(value)
}

/** A value as it would be written: a string that looks like a number is not taken for one. */
function printed(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value)
  return typeof value === 'bigint' ? `${value}n` : String(value)
}

/** Number of pages in the spans; `TypeError` or `RangeError` when a span is no Uint8Array of whole pages. */
export function countPages(spans: readonly Uint8Array[], pageSizeBytes: number): number {
  let pages = 0
  for (let index = 0; index < spans.length; index++) pages += pagesOf(spans[index], index, pageSizeBytes)
  return pages
}

/** `which`: what the span is called in errors, or its place. */
function pagesOf(span: Uint8Array, which: number | string, pageSizeBytes: number): number {
  if (!isUint8Array(span)) throw new TypeError(`${spanName(which)} is not a Uint8Array`)
  const bytes = span.byteLength
  if (bytes === 0 || bytes % pageSizeBytes !== 0) {
    throw new RangeError(
      `${spanName(which)} has ${bytes} bytes; it must be one or more whole pages of ${pageSizeBytes}`,
    )
  }
  return bytes / pageSizeBytes
}

function spanName(which: number | string): string {
  return typeof which === 'number' ? `span ${which}` : which
}

/** Whether it is a Uint8Array or a subclass of it, of this realm or of another (a vm context, a test runner's). */
export function isUint8Array(value: unknown): value is Uint8Array {
  return ArrayBuffer.isView(value) && (value as Uint8Array)[Symbol.toStringTag] === 'Uint8Array'
}

/** Number of handles in the runs; `TypeError` or `RangeError` when a run could not have come from any backup. */
export function countHandles(handles: readonly HandleRun[]): number {
  let count = 0
  for (const run of handles) {
    if (typeof run !== 'object' || run === null) throw new TypeError(`${String(run)} is not a run of handles`)
    assertHandles(run.first, run.count)
    if (!Number.isInteger(run.count) || run.count < 1) {
      throw new RangeError(`a run of ${run.count} handles; it must be an integer of 1 or more`)
    }
    count += run.count
  }
  return count
}

/** Number of pages of a copy to start; `TypeError` or `RangeError` when an argument is none that it could have. */
export function countStartedCopy(
  first: number,
  span: Uint8Array,
  done: CopyDone,
  pageSizeBytes: number,
): number {
  const count = pagesOf(span, 'the span', pageSizeBytes)
  assertHandles(first, count)
  if (typeof done !== 'function') throw new TypeError(`done is ${printed(done)}; it must be a function`)
  return count
}

function assertHandles(first: number, count: number): void {
  if (!Number.isInteger(first) || first < 1 || first + count - 1 > maxHandle) {
    throw new RangeError(`handle ${first} is not an integer from 1 to ${maxHandle}`)
  }
}

/** Number of pages to copy; `RangeError` unless there are as many handles as pages in the spans. */
export function countCopy(
  handles: readonly HandleRun[],
  spans: readonly Uint8Array[],
  pageSizeBytes: number,
): number {
  const handleCount = countHandles(handles)
  const pageCount = countPages(spans, pageSizeBytes)
  if (handleCount !== pageCount) {
    throw new RangeError(`${handleCount} handles for ${pageCount} pages; each page needs one handle`)
  }
  return pageCount
}

const transferOptions = ['signal', 'retryMayFail']
const backupPagesOptions = [...transferOptions, 'writeback', 'reservation']

/** Throws `TypeError` for an unknown option of `copyPages` or a signal that is none. */
export function assertTransferOptions(options: TransferOptions): void {
  assertKnownOptions(options, transferOptions, 'copyPages')
}

/** Throws `TypeError` for an unknown option of `backupPages` or a signal that is none. */
export function assertBackupPagesOptions(options: BackupPagesOptions): void {
  assertKnownOptions(options, backupPagesOptions, 'backupPages')
  assertFlag(options.writeback, 'writeback')
}

function assertFlag(value: unknown, name: string): void {
  if (value !== undefined && typeof value !== 'boolean') {
    throw new TypeError(`${name} is ${String(value)}; it must be true or false`)
  }
}
