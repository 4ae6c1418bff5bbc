import {
  abortError,
  type Backup,
  type BackupPagesOptions,
  type CopyDone,
  countHandles,
  type HandleRun,
  InnerPages,
  innerError,
  pace,
  SpanCursor,
  SpillwayError,
  type StagingBuffers,
  type Stopped,
  systemError,
  type TransferOptions,
} from '@spillway/core'
import { type PageCipher, tagBytes } from './page-cipher.ts'
import { TagTable } from './tag-table.ts'

/** Sealed or opened between two looks at the clock. */
const pieceBytes = 64 * 1024
/** The longest copy that is opened in one go, in the turn in which it arrives. */
const longestStartedBytes = 256 * 1024

/**
 * Pages of an inner backup that leave the process sealed. A number is given to one page, for one call: what the inner backup did
 * not take is never sealed under its number again.
 *
 *   store   pages ── seal, each under its number ──▶ staging ──▶ inner backup        tags ──▶ table
 *   copy    caller's memory ◀── open in place ◀── caller's memory ◀── inner backup   tags ◀── table
 */
export class EncryptedPages {
  readonly #backup: string
  readonly #pageSizeBytes: number
  readonly #inner: InnerPages
  readonly #staging: StagingBuffers
  readonly #ready: Promise<PageCipher>
  readonly #tags = new TagTable()
  /** Pages that did not match their tag twice: they are not read again. */
  readonly #damaged = new Set<number>()
  readonly #tag = new Uint8Array(tagBytes)
  #cipher: PageCipher | undefined
  #tagMismatches = 0

  constructor(backup: string, inner: Backup, staging: StagingBuffers, ready: Promise<PageCipher>) {
    this.#backup = backup
    this.#pageSizeBytes = inner.capabilities.pageSizeBytes
    this.#inner = new InnerPages(backup, inner)
    this.#staging = staging
    this.#ready = ready
  }

  get figures() {
    return {
      cipher: this.#cipher?.kind,
      tagMismatches: this.#tagMismatches,
      damagedPages: this.#damaged.size,
      stagingBytes: this.#staging.heldBytes,
      metadataBytes: this.#tags.metadataBytes + this.#inner.metadataBytes,
    }
  }

  async store(
    first: number,
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): Promise<Stopped | undefined> {
    const wanted = spans.reduce((bytes, span) => bytes + span.byteLength, 0) / this.#pageSizeBytes
    this.#cipher ??= await this.#ready
    const buffer = await this.#staging.take(options.signal)
    let stored = 0
    try {
      await this.#seal(first, wanted, new SpanCursor(spans), buffer.memory)
      const sealed = buffer.memory.subarray(0, wanted * this.#pageSizeBytes)
      const { pages, error } = await this.#inner.store(first, [sealed], options)
      stored = pages
      return error === undefined ? undefined : { pages, error }
    } finally {
      this.#tags.delete(first + stored, wanted - stored)
      this.#staging.give(buffer)
    }
  }

  async copyRuns(
    runs: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<Stopped | undefined> {
    const target = new SpanCursor(spans)
    const stopped = await this.#inner.copy(runs, spans, options)
    const count = stopped?.pages ?? countHandles(runs)
    let copied = 0
    for (const number of numbersOf(runs)) {
      if (copied === count) break
      const turn = this.#turnBefore(copied)
      if (turn !== undefined) await turn
      if (options.signal?.aborted)
        return { pages: copied, error: abortError(options.signal, this.#at(copied)) }
      const page = target.next(this.#pageSizeBytes)
      if (!this.#open(number, page)) {
        const error = await this.#readAgain(number, page, copied, options)
        if (error !== undefined) return { pages: copied, error }
      }
      copied++
    }
    return stopped
  }

  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    if (this.#cipher === undefined || span.byteLength > longestStartedBytes) return false
    return this.#inner.startCopy(first, span, (copied, error) => {
      if (this.#openAll(first, span, copied)) done(copied, error)
      else this.#copyAgain(first, span, done)
    })
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    await this.#inner.drop(handles)
    for (const { first, count } of handles) {
      this.#tags.delete(first, count)
      if (this.#damaged.size === 0) continue
      for (let number = first; number < first + count; number++) this.#damaged.delete(number)
    }
  }

  /** Forgets the key and every tag. */
  async erase(): Promise<void> {
    const cipher = await this.#ready
    cipher.erase()
    this.#tags.clear()
    this.#staging.close()
  }

  /** Seals pages into staging memory, with turns of the event loop between. */
  async #seal(first: number, count: number, source: SpanCursor, target: Uint8Array): Promise<void> {
    for (let page = 0; page < count; page++) {
      const turn = this.#turnBefore(page)
      if (turn !== undefined) await turn
      const start = page * this.#pageSizeBytes
      const sealed = target.subarray(start, start + this.#pageSizeBytes)
      this.#cipher!.seal(first + page, source.next(this.#pageSizeBytes), sealed, this.#tag)
      this.#tags.set(first + page, this.#tag)
    }
  }

  /** Whether all of the first `count` pages of the span are good. False as well when the memory is gone. */
  #openAll(first: number, span: Uint8Array, count: number): boolean {
    if (span.byteLength < count * this.#pageSizeBytes) return false
    for (let page = 0; page < count; page++) {
      const start = page * this.#pageSizeBytes
      if (!this.#open(first + page, span.subarray(start, start + this.#pageSizeBytes))) return false
    }
    return true
  }

  /** Whether a page is the one that was stored under this number; then its content lies there. */
  #open(number: number, page: Uint8Array): boolean {
    // A page that is being dropped has lost its tag: whoever asked is told that it is stale.
    const isGood =
      !this.#damaged.has(number) &&
      this.#tags.read(number, this.#tag) &&
      this.#cipher!.open(number, page, this.#tag)
    if (!isGood) page.fill(0)
    return isGood
  }

  /** What was damaged on its way here, and not where it lies, is good the second time. `place`: in the call. */
  async #readAgain(
    number: number,
    page: Uint8Array,
    place: number,
    options: TransferOptions,
  ): Promise<Error | undefined> {
    if (this.#damaged.has(number)) return this.#damagedError(number, place)
    this.#tagMismatches++
    const stopped = await this.#inner.copy([{ first: number, count: 1 }], [page], options)
    // It cannot be said whether the page is damaged where it lies.
    if (stopped !== undefined) return innerError(stopped.error, { ...this.#at(place), handle: number })
    if (this.#open(number, page)) return undefined
    if (this.#tags.read(number, this.#tag)) this.#damaged.add(number)
    return this.#damagedError(number, place)
  }

  #copyAgain(first: number, span: Uint8Array, done: CopyDone): void {
    const count = span.byteLength / this.#pageSizeBytes
    this.copyRuns([{ first, count }], [span], {}).then(
      (stopped) => done(stopped?.pages ?? count, stopped?.error),
      (failure) => done(0, systemError(failure, 'cannot read pages', { backup: this.#backup })),
    )
  }

  #damagedError(number: number, page: number): SpillwayError {
    const message = 'a page is not what was stored: it was changed on its medium'
    return new SpillwayError('EBADMSG', message, { ...this.#at(page), handle: number })
  }

  /** What to await before a page is worked on, the how many-th of its call. */
  #turnBefore(page: number): Promise<void> | undefined {
    const bytes = Math.max(pieceBytes, this.#pageSizeBytes)
    return (page * this.#pageSizeBytes) % bytes === 0 ? pace(bytes * this.#cipher!.workFactor) : undefined
  }

  #at(page: number): { backup: string; page: number } {
    return { backup: this.#backup, page }
  }
}

function* numbersOf(runs: readonly HandleRun[]): Generator<number, undefined> {
  for (const { first, count } of runs) for (let number = first; number < first + count; number++) yield number
}
