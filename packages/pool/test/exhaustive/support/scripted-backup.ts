import {
  abortError,
  type Backup,
  type BackupPagesOptions,
  type BackupResult,
  type CopyResult,
  type HandleRun,
  memoryBackup,
  type TransferOptions,
} from '@spillway/core'
import { page } from '../../support/bytes.ts'

/** Ten thousands of scenes store their few pages here, one after the other: making room anew for each takes too long. */
const shared = memoryBackup({ capacityBytes: 512 * page, name: 'shared' })
// One page that stays keeps the memory of the others warm.
await shared.backupPages([new Uint8Array(page)])

/** What a page meets: nothing, or the failure that stops the call before it. */
export type PageScript = (
  method: 'backupPages' | 'copyPages',
  /** The how many-th page of all calls of this method, from 0. */
  index: number,
) => Error | undefined | Promise<Error | undefined>

export interface ScriptedBackupOptions {
  readonly capacityPages?: number
  readonly name?: string
  /** Pages and calls that it says it handles best. */
  readonly batchPages?: number
  readonly callsInFlight?: number
  /** Give no two pages adjacent handles. */
  readonly scattered?: boolean
  /** It has `startCopy`, which is done later. */
  readonly startsCopies?: boolean
}

/** A backup that asks a script before each page, and that is as unpleasant as the contract lets it be. */
export interface ScriptedBackup extends Backup {
  startCopy?: NonNullable<Backup['startCopy']>
  script: PageScript | undefined
  /** Pages asked for so far. */
  readonly asked: { backupPages: number; copyPages: number; drop: number }
  /** What the next calls of `drop` meet, one after the other. */
  dropFailures: (Error | undefined)[]
  availableFailure: Error | undefined
}

/**
 * The script is asked before each page, and the signal looked at; then the pages before the stop are moved. Where a copy
 * stops, what is after it is scribbled over: the contract says that it is undefined. With `scattered`, each page is
 * stored by itself, so that no two have adjacent handles.
 */
export function scriptedBackup(options: ScriptedBackupOptions = {}): ScriptedBackup {
  const { capacityPages, name = 'scripted', scattered = false } = options
  const inner =
    capacityPages === undefined ? shared : memoryBackup({ capacityBytes: capacityPages * page, name })
  const atFirst = inner.stats()
  const capabilities = Object.freeze({
    ...inner.capabilities,
    preferredBatchPages: options.batchPages ?? inner.capabilities.preferredBatchPages,
    preferredCallsInFlight: options.callsInFlight ?? inner.capabilities.preferredCallsInFlight,
  })
  const asked = { backupPages: 0, copyPages: 0, drop: 0 }

  /** How many pages of a call are moved, and what stops it. */
  const stopOf = async (
    method: 'backupPages' | 'copyPages',
    pageCount: number,
    signal: AbortSignal | undefined,
  ): Promise<{ count: number; error: Error | undefined }> => {
    for (let count = 0; count < pageCount; count++) {
      if (signal?.aborted) return { count, error: abortError(signal, { backup: name, page: count }) }
      const index = asked[method]++
      const failure = backup.script === undefined ? undefined : await backup.script(method, index)
      if (failure !== undefined) return { count, error: failure }
      if (signal?.aborted) return { count, error: abortError(signal, { backup: name, page: count }) }
    }
    return { count: pageCount, error: undefined }
  }

  const backup: ScriptedBackup = {
    name,
    capabilities,
    script: undefined,
    asked,
    dropFailures: [],
    availableFailure: undefined,

    async backupPages(spans: readonly Uint8Array[], options: BackupPagesOptions = {}): Promise<BackupResult> {
      const pages = pagesOf(spans)
      const { count, error } = await stopOf('backupPages', pages.length, options.signal)
      const { signal: _, ...others } = options
      const moved = scattered ? pages.slice(0, count).map((bytes) => [bytes]) : [firstPages(spans, count)]
      const handles: HandleRun[] = []
      for (const part of moved) {
        if (part.length === 0) break
        const result = await inner.backupPages(part, others)
        handles.push(...result.handles)
        if (result.error !== undefined) return { handles, error: result.error }
      }
      return error === undefined ? { handles } : { handles, error }
    },

    async copyPages(
      handles: readonly HandleRun[],
      spans: readonly Uint8Array[],
      options: TransferOptions = {},
    ): Promise<CopyResult> {
      const pages = pagesOf(spans)
      const { count, error } = await stopOf('copyPages', pages.length, options.signal)
      const { signal: _, ...others } = options
      for (const left of pages.slice(count)) left.fill(0xee)
      if (count > 0) {
        const result = await inner.copyPages(firstHandles(handles, count), pages.slice(0, count), others)
        if (result.error !== undefined) return result
      }
      return error === undefined ? { copied: count } : { copied: count, error }
    },

    async drop(handles: readonly HandleRun[]): Promise<void> {
      asked.drop++
      const failure = backup.dropFailures.shift()
      if (failure !== undefined) throw failure
      return inner.drop(handles)
    },

    async bytesAvailable(): Promise<number> {
      if (backup.availableFailure !== undefined) throw backup.availableFailure
      return inner.bytesAvailable()
    },

    reserve: (bytes) => inner.reserve(bytes),
    stats() {
      const { livePages, copiedPages, ...others } = inner.stats()
      return {
        ...others,
        livePages: livePages - atFirst.livePages,
        copiedPages: copiedPages - atFirst.copiedPages,
      }
    },
    async close() {
      if (inner !== shared) await inner.close()
    },
    [Symbol.asyncDispose]: () => backup.close(),
  }
  if (options.startsCopies === true) {
    backup.startCopy = (first, span, done) => {
      const count = span.byteLength / page
      backup
        .copyPages([{ first, count }], [span])
        .then(({ copied, error }) => (error === undefined ? done(copied) : done(copied, error)))
      return true
    }
  }
  return backup
}

function pagesOf(spans: readonly Uint8Array[]): Uint8Array[] {
  const pages: Uint8Array[] = []
  for (const span of spans) {
    for (let offset = 0; offset < span.byteLength; offset += page) {
      pages.push(span.subarray(offset, offset + page))
    }
  }
  return pages
}

function firstPages(spans: readonly Uint8Array[], count: number): Uint8Array[] {
  const first: Uint8Array[] = []
  let left = count * page
  for (const span of spans) {
    if (left === 0) break
    first.push(span.subarray(0, Math.min(left, span.byteLength)))
    left -= Math.min(left, span.byteLength)
  }
  return first
}

function firstHandles(handles: readonly HandleRun[], count: number): HandleRun[] {
  const first: HandleRun[] = []
  let left = count
  for (const run of handles) {
    if (left === 0) break
    first.push({ first: run.first, count: Math.min(left, run.count) })
    left -= Math.min(left, run.count)
  }
  return first
}
