import type { Backup, CopyDone, CopyResult, HandleRun, TransferOptions } from '@spillway/core'

/** Changes the bytes of a page, as somebody does who has the medium in hand. */
export type Tamper = (page: Uint8Array) => void

export interface TamperedBackup extends Backup {
  startCopy?: NonNullable<Backup['startCopy']>
  /** Handles in the order in which they were stored. */
  readonly stored: number[]
  /** What was stored under each handle. */
  readonly bytesOf: Map<number, Uint8Array>
  /** What every copy of a page meets from now on. */
  readonly tampers: Map<number, Tamper>
}

/** The same backup, with somebody between it and its owner. */
export function tamperedBackup(inner: Backup): TamperedBackup {
  const size = inner.capabilities.pageSizeBytes
  const stored: number[] = []
  const bytesOf = new Map<number, Uint8Array>()
  const tampers = new Map<number, Tamper>()
  const tamperRuns = (runs: readonly HandleRun[], spans: readonly Uint8Array[]): void => {
    if (tampers.size === 0) return
    const pages = spans.flatMap((span) => pagesOf(span, size))
    const handles = runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, at) => first + at))
    for (const [index, page] of pages.entries()) tampers.get(handles[index])?.(page)
  }
  const backup: TamperedBackup = {
    ...delegating(inner),
    stored,
    bytesOf,
    tampers,
    async backupPages(spans, options) {
      const copies = spans.flatMap((span) => pagesOf(span, size).map((page) => page.slice()))
      const result = await inner.backupPages(spans, options)
      for (const { first, count } of result.handles) {
        for (let handle = first; handle < first + count; handle++) {
          stored.push(handle)
          bytesOf.set(handle, copies.shift() as Uint8Array)
        }
      }
      return result
    },
    async copyPages(
      handles: readonly HandleRun[],
      spans: readonly Uint8Array[],
      options?: TransferOptions,
    ): Promise<CopyResult> {
      const result = await inner.copyPages(handles, spans, options)
      tamperRuns(handles, spans)
      return result
    },
    async drop(handles) {
      await inner.drop(handles)
      for (const { first, count } of handles) {
        for (let handle = first; handle < first + count; handle++) bytesOf.delete(handle)
      }
    },
  }
  if (inner.startCopy === undefined) return backup
  backup.startCopy = (first, span, done: CopyDone) =>
    inner.startCopy!(first, span, (copied, error) => {
      tamperRuns([{ first, count: span.byteLength / size }], [span])
      done(copied, error)
    })
  return backup
}

export function withoutStartCopy(inner: Backup): Backup {
  return delegating(inner)
}

function delegating(inner: Backup): Backup {
  return {
    name: inner.name,
    capabilities: inner.capabilities,
    backupPages: (spans, options) => inner.backupPages(spans, options),
    copyPages: (handles, spans, options) => inner.copyPages(handles, spans, options),
    drop: (handles) => inner.drop(handles),
    bytesAvailable: () => inner.bytesAvailable(),
    reserve: (bytes) => inner.reserve(bytes),
    stats: () => inner.stats(),
    close: () => inner.close(),
    [Symbol.asyncDispose]: () => inner.close(),
  }
}

export function pagesOf(span: Uint8Array, size: number): Uint8Array[] {
  return Array.from({ length: span.byteLength / size }, (_, page) =>
    span.subarray(page * size, (page + 1) * size),
  )
}

/** Flips a bit of the page. */
export const flip: Tamper = (page) => {
  page[100] ^= 1
}

/** Tells, for each handle that `outer` gives, which handle of `inner` it has become. Calls of `backupPages` must not overlap. */
export function followHandles(outer: Backup, inner: TamperedBackup): (handle: number) => number {
  const handles = new Map<number, number>()
  const store = outer.backupPages.bind(outer)
  outer.backupPages = async (spans, options) => {
    const before = inner.stored.length
    const result = await store(spans, options)
    const made = inner.stored.slice(before)
    for (const { first, count } of result.handles) {
      for (let at = 0; at < count; at++) handles.set(first + at, made.shift() as number)
    }
    return result
  }
  return (handle) => handles.get(handle) as number
}
