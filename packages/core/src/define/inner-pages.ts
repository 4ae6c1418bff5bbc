import type { Backup, BackupPagesOptions, CopyDone, HandleRun, TransferOptions } from '../contract.ts'
import { isSpillwayError, SpillwayError, type SpillwayErrorFields } from '../errors.ts'
import { RunMap } from '../slots/run-map.ts'
import { printedNoBackup } from '../validation.ts'
import type { Stopped } from './definition.ts'

/** Pages `first`, `first + 1`, … that the inner backup has under `handle`, `handle + 1`, … */
export interface KeptRun extends HandleRun {
  readonly handle: number
}

/**
 * Pages that a backup made of backups keeps in one of them: under its own numbers, each mapped to a handle of the inner backup. What
 * the inner backup says is told in the outer one's terms: its errors name the outer backup, page and handle, and have what the
 * inner one said as their cause.
 */
export class InnerPages {
  readonly #backup: string
  readonly #inner: Backup
  readonly #handles = new RunMap()

  /** `backup` names the outer one in errors. */
  constructor(backup: string, inner: Backup) {
    this.#backup = backup
    this.#inner = inner
  }

  get metadataBytes(): number {
    return this.#handles.metadataBytes
  }

  /** Whether a page is kept here. */
  has(page: number): boolean {
    return this.#handles.targetOf(page) !== undefined
  }

  /** How many pages from this one on, at most `count`, are kept here under adjacent handles. */
  lengthFrom(page: number, count: number): number {
    return this.#handles.lengthFrom(page, count)
  }

  /** Those of some pages that are kept here, in runs that the inner backup has under adjacent handles. */
  *keptOf({ first, count }: HandleRun): Generator<KeptRun> {
    for (let done = this.#handles.gapFrom(first, count); done < count; ) {
      const page = first + done
      const length = this.#handles.lengthFrom(page, count - done)
      yield { first: page, count: length, handle: this.#handles.targetOf(page)! }
      done += length
      done += this.#handles.gapFrom(first + done, count - done)
    }
  }

  /** Stores the pages of the spans under `first`, `first + 1`, …; tells how many, from the first on, and what stopped it. */
  store(
    first: number,
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): Promise<{ pages: number; error?: Error }> {
    const bytes = spans.reduce((sum, span) => sum + span.byteLength, 0)
    return this.storeRuns([{ first, count: bytes / this.#inner.capabilities.pageSizeBytes }], spans, options)
  }

  /** The same for pages of many places, in one call. */
  async storeRuns(
    pages: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): Promise<{ pages: number; error?: Error }> {
    const { handles, error } = await this.#inner.backupPages(spans, options)
    let stored = 0
    for (const run of handles) {
      let done = 0
      for (const part of runsFrom(pages, stored, run.count)) {
        this.#handles.set(part.first, part.count, run.first + done)
        done += part.count
      }
      stored += run.count
    }
    if (error === undefined) return { pages: stored }
    return { pages: stored, error: this.#told(error, stored, nth(pages, stored)) }
  }

  /** Keeps pages that were stored in the inner backup by other means. */
  adopt({ first, count, handle }: KeptRun): void {
    this.#handles.set(first, count, handle)
  }

  /** Fills the spans with these pages, all of which are kept here. */
  async copy(
    pages: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<Stopped | undefined> {
    try {
      const { copied, error } = await this.#inner.copyPages(this.handlesOf(pages), spans, options)
      if (error === undefined) return undefined
      return { pages: copied, error: this.#told(error, copied, nth(pages, copied)) }
    } catch (failure) {
      return { pages: 0, error: this.#told(failure as Error, 0, pages[0].first) }
    }
  }

  /** Starts copying adjacent pages; false where that cannot be begun this way. */
  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    const count = span.byteLength / this.#inner.capabilities.pageSizeBytes
    const handle = this.#handles.targetOf(first)
    if (handle === undefined || this.#inner.startCopy === undefined) return false
    if (this.#handles.lengthFrom(first, count) < count) return false
    return this.#inner.startCopy(handle, span, (copied, error) => {
      if (error === undefined) done(copied)
      else done(copied, this.#told(error, copied, first + copied))
    })
  }

  /** Releases all of these pages, or throws and has released none. */
  async drop(pages: readonly HandleRun[]): Promise<void> {
    try {
      await this.#inner.drop(this.handlesOf(pages))
    } catch (failure) {
      throw this.#told(failure as Error, undefined, undefined)
    }
    this.forget(pages)
  }

  /** Forgets where these pages are, which the inner backup has dropped, or will have. */
  forget(pages: readonly HandleRun[]): void {
    for (const { first, count } of pages) this.#handles.delete(first, count)
  }

  /** The handles of these pages in the inner backup. */
  handlesOf(pages: readonly HandleRun[]): HandleRun[] {
    const handles: HandleRun[] = []
    for (const { first, count } of pages) {
      for (let done = 0; done < count; ) {
        const length = this.#handles.lengthFrom(first + done, count - done)
        if (length === 0)
          throw new SpillwayError('EIO', `page ${first + done} is not kept here`, { backup: this.#backup })
        handles.push({ first: this.#handles.targetOf(first + done)!, count: length })
        done += length
      }
    }
    return handles
  }

  #told(error: Error, page: number | undefined, handle: number | undefined): Error {
    return innerError(error, { backup: this.#backup, page, handle })
  }
}

/**
 * The error of a backup made of others for one of an inner backup. `ESTALE` becomes `EIO`: it is about a handle of the inner one, which
 * nobody but the outer may drop. The page is lost there, and its own handle is not stale.
 */
export function innerError(error: Error, at: Pick<SpillwayErrorFields, 'backup' | 'page' | 'handle'>): Error {
  if (!isSpillwayError(error)) return error
  const code = error.code === 'ESTALE' ? 'EIO' : error.code
  const message = error.message.replace(/^[A-Z0-9]+: /, '')
  const cause = error.code === 'EINTR' ? error.cause : error
  return new SpillwayError(code, message, { ...at, cause, retryable: error.retryable })
}

/** The runs of `count` pages, from the `skipped`th on. */
function* runsFrom(runs: readonly HandleRun[], skipped: number, count: number): Generator<HandleRun> {
  let before = 0
  const end = skipped + count
  for (const run of runs) {
    const from = Math.max(skipped, before)
    const to = Math.min(end, before + run.count)
    if (from < to) yield { first: run.first + from - before, count: to - from }
    before += run.count
  }
}

function nth(runs: readonly HandleRun[], index: number): number | undefined {
  let before = 0
  for (const { first, count } of runs) {
    if (index < before + count) return first + index - before
    before += count
  }
  return undefined
}

/**
 * Throws `TypeError` unless `inner` is a backup that another can be made of: one that keeps pages, and not longer than the process
 * that knows where they are. `caller` is named in the error.
 */
export function assertInnerBackup(inner: Backup, caller: string): void {
  const looksRight = typeof inner?.backupPages === 'function' && typeof inner.capabilities === 'object'
  if (!looksRight)
    throw new TypeError(`${caller} is made of a backup; it was given ${printedNoBackup(inner)}`)
  const { persistent, stores } = inner.capabilities
  if (!stores) throw new TypeError(`${caller} cannot be made of ${inner.name}, which keeps nothing`)
  if (!persistent) return
  throw new TypeError(
    `${caller} cannot be made of ${inner.name}, which is persistent: what it keeps could not be read by the next process`,
  )
}
