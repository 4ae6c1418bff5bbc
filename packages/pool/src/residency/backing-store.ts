import type {
  Backup,
  BackupPagesOptions,
  BackupResult,
  CopyResult,
  HandleRun,
  TransferOptions,
} from '@spillway/core'
import {
  countHandles,
  isSpillwayError,
  nowMs,
  onTurn,
  SpillwayError,
  smallCallBytes,
  systemCodeOf,
} from '@spillway/core'
import { warn } from '../ground/trace.ts'
import { type CallEnd, tracing } from '../ground/tracing.ts'

/**
 * One backup as the pool uses it: results are checked before they are believed, drops are gathered into few calls, and a
 * backup that fails is left alone for a while, longer each time (10 ms to 1 s).
 */
export class BackingStore {
  readonly backup: Backup
  readonly name: string
  /** Pages a call handles best, and calls worth having in flight. */
  readonly batchPages: number
  readonly callsInFlight: number
  /** Buffers that use it, and their dirty pages. */
  users = 0
  dirtyPages = 0
  /** Reclaim's calls that are under way, and the last failure of one. */
  reclaimCalls = 0
  failure: Error | undefined
  /** The latest attempt of reclaim that failed (`Limit.attempts`). */
  failedAttempt = 0
  /** Pages that could not be released so far, and why the last of them could not. */
  dropFailures = 0
  dropFailure: Error | undefined
  #failures = 0
  #retryAtMs = 0
  #pending: { first: number; count: number }[] = []
  /** What the backup refused to release: tried again with the next that is released, and by whoever waits for it. */
  #refused: HandleRun[] = []
  #dropping: Promise<void> | undefined
  #willDrop = false
  /** In debug mode: handles of this pool that were not given up. */
  readonly #live: Set<number> | undefined

  /** `checksHandles`: notices when the backup returns a handle again that is live. */
  constructor(backup: Backup, checksHandles = false) {
    this.backup = backup
    this.#live = checksHandles ? new Set() : undefined
    this.name = backup.name
    this.batchPages = Math.max(1, backup.capabilities.preferredBatchPages)
    this.callsInFlight = Math.max(1, backup.capabilities.preferredCallsInFlight)
  }

  /** Milliseconds until reclaim should try this backup again; 0 when it may now. */
  get backoffMs(): number {
    return this.failure === undefined ? 0 : Math.max(0, this.#retryAtMs - nowMs())
  }

  /** Whether the last failure may pass by itself, and has not been tried too often. */
  get worthRetrying(): boolean {
    return isSpillwayError(this.failure) && passing.has(this.failure.code) && this.#failures <= 5
  }

  noteSuccess(): void {
    this.failure = undefined
    this.#failures = 0
  }

  noteFailure(error: Error, attempt: number): void {
    this.failure = error
    this.failedAttempt = Math.max(this.failedAttempt, attempt)
    this.#retryAtMs = nowMs() + Math.min(1000, 10 * 2 ** Math.min(this.#failures, 10))
    this.#failures++
  }

  /** Stores pages. Never rejects: what a backup throws is a result without handles. */
  backupPages(spans: Uint8Array[], pageCount: number, options: BackupPagesOptions): Promise<BackupResult> {
    if (!tracing.backupPages.isHeard) return this.#backupPages(spans, pageCount, options)
    return this.#traceStoring(this.#backupPages(spans, pageCount, options), pageCount)
  }

  async #traceStoring(storing: Promise<BackupResult>, pageCount: number): Promise<BackupResult> {
    const end = tracing.backupPages.begin(this.#call(pageCount))
    const result = await storing
    end(countHandles(result.handles), result.error)
    return result
  }

  #call(pages: number) {
    return { backup: this.name, pages, bytes: pages * this.backup.capabilities.pageSizeBytes }
  }

  async #backupPages(
    spans: Uint8Array[],
    pageCount: number,
    options: BackupPagesOptions,
  ): Promise<BackupResult> {
    try {
      const result = await this.backup.backupPages(spans, options)
      const stored = countHandles(result.handles)
      if (stored > pageCount) return broken(this, `${stored} handles for ${pageCount} pages`)
      if (stored < pageCount && result.error === undefined) {
        return { handles: result.handles, error: brokenError(this, 'a short result without an error') }
      }
      const twice = this.#noteLive(result.handles)
      if (twice !== undefined) return broken(this, `handle ${twice} was returned again while it is live`)
      // Whoever asked: reclaim need not leave it alone any longer.
      if (result.error === undefined && pageCount > 0) this.noteSuccess()
      return result
    } catch (failure) {
      return { handles: [], error: asError(failure) }
    }
  }

  /** Remembers handles; returns the first that is live already, and then remembers none. */
  #noteLive(handles: readonly HandleRun[]): number | undefined {
    const live = this.#live
    if (live === undefined) return undefined
    const added: number[] = []
    for (const { first, count } of handles) {
      for (let handle = first; handle < first + count; handle++) {
        if (live.has(handle)) {
          for (const other of added) live.delete(other)
          return handle
        }
        live.add(handle)
        added.push(handle)
      }
    }
    return undefined
  }

  /** The backup may use these handles again from the call on that drops them. */
  #forgetLive(handles: readonly HandleRun[]): void {
    if (this.#live === undefined) return
    for (const { first, count } of handles) {
      for (let handle = first; handle < first + count; handle++) this.#live.delete(handle)
    }
  }

  /** Fills memory. Never rejects. */
  copyPages(
    handles: HandleRun[],
    spans: Uint8Array[],
    pageCount: number,
    options: TransferOptions,
  ): Promise<CopyResult> {
    if (!tracing.copyPages.isHeard) return this.#copyPages(handles, spans, pageCount, options)
    return this.#traceCopying(this.#copyPages(handles, spans, pageCount, options), pageCount)
  }

  async #traceCopying(copying: Promise<CopyResult>, pageCount: number): Promise<CopyResult> {
    const end = tracing.copyPages.begin(this.#call(pageCount))
    const result = await copying
    end(result.copied, result.error)
    return result
  }

  async #copyPages(
    handles: HandleRun[],
    spans: Uint8Array[],
    pageCount: number,
    options: TransferOptions,
  ): Promise<CopyResult> {
    try {
      const result = await this.backup.copyPages(handles, spans, options)
      const { copied, error } = result
      const problem = this.#copyProblem(copied, pageCount, error)
      return { copied: isPrefix(copied, pageCount) ? copied : 0, error: problem ?? error }
    } catch (failure) {
      return { copied: 0, error: asError(failure) }
    }
  }

  /** Whether the backup can start a copy without a promise. */
  get startsCopies(): boolean {
    return this.backup.startCopy !== undefined
  }

  /**
   * Starts to fill memory with the pages of adjacent handles. False: not this way, nothing was done. Otherwise its waiter is
   * told once, possibly before this returns, of the prefix that arrived and of what stopped it. What a backup does wrong
   * is such an error.
   */
  startCopy(first: number, span: Uint8Array, waiter: CopyWaiter): boolean {
    if (!tracing.copyPages.isHeard) return this.#startCopy(first, span, waiter)
    const startMs = nowMs()
    const { pageCount } = waiter
    // A copy that is refused is none: it is told of when it has begun, which may be when it is done.
    let end: CallEnd | undefined
    const begin = () => (end ??= tracing.copyPages.begin(this.#call(pageCount), startMs))
    const copyEnded = (copied: number, error: Error | undefined) => {
      begin()(copied, error)
      waiter.copyEnded(copied, error)
    }
    const hasStarted = this.#startCopy(first, span, { pageCount, copyEnded })
    if (hasStarted) begin()
    return hasStarted
  }

  #startCopy(first: number, span: Uint8Array, waiter: CopyWaiter): boolean {
    let isStarting = true
    let isDone = false
    let copied = 0
    let error: Error | undefined
    const settle = (copiedNow: number, errorNow?: Error) => {
      if (isDone) {
        error = brokenError(this, 'a copy that was done is done again')
        if (!isStarting) warn('SPILLWAY_BACKUP_BROKEN', error.message)
        return
      }
      isDone = true
      copied = copiedNow
      error = errorNow ?? undefined
      if (!isStarting) this.#tell(waiter, copied, error)
    }
    let hasStarted = false
    try {
      hasStarted = this.backup.startCopy!(first, span, settle)
    } catch (failure) {
      if (!isDone) settle(0, asError(failure))
    }
    isStarting = false
    if (isDone) this.#tell(waiter, copied, error)
    return hasStarted || isDone
  }

  #tell(waiter: CopyWaiter, copied: number, error: Error | undefined): void {
    const { pageCount } = waiter
    const problem = this.#copyProblem(copied, pageCount, error)
    waiter.copyEnded(isPrefix(copied, pageCount) ? copied : 0, problem ?? error)
  }

  /** Why a result of a copy cannot be one. */
  #copyProblem(copied: number, pageCount: number, error: Error | undefined): Error | undefined {
    if (!isPrefix(copied, pageCount)) return brokenError(this, `${copied} pages copied of ${pageCount}`)
    if (copied < pageCount && error === undefined) {
      return brokenError(this, 'a short result without an error')
    }
    return undefined
  }

  /** Whether pages that were given up are still to be released. */
  get isDropping(): boolean {
    return this.#willDrop || this.#dropping !== undefined
  }

  /** Releases stored pages, in the next turn of the event loop: what is given up until then is one call. */
  drop(first: number, count: number): void {
    const last = this.#pending.at(-1)
    if (last !== undefined && last.first + last.count === first) {
      last.count += count
      return
    }
    this.#pending.push({ first, count })
    if (this.isDropping) return
    this.#willDrop = true
    onTurn(smallCallBytes, this.#startDropping)
  }

  dropRuns(runs: readonly HandleRun[]): void {
    for (const run of runs) this.drop(run.first, run.count)
  }

  /** Resolves when every stored page that was given up is released, or was refused once more. */
  async settled(): Promise<void> {
    while (this.isDropping) {
      this.#startDropping()
      await this.#dropping
    }
    if (this.#refused.length === 0) return
    this.#dropping = this.#dropPending()
    await this.#dropping
  }

  readonly #startDropping = (): void => {
    if (!this.#willDrop) return
    this.#willDrop = false
    this.#dropping ??= this.#dropPending()
  }

  async #dropPending(): Promise<void> {
    await this.#dropRefused()
    while (this.#pending.length > 0) {
      const runs = this.#pending
      this.#pending = []
      this.#forgetLive(runs)
      try {
        await this.backup.drop(runs)
      } catch (failure) {
        // No byte of a buffer depends on it: the pages stay stored until the backup is closed. We retry with the next drop.
        if (this.dropFailures === 0) {
          const hint = systemCodeOf(failure) === 'EBADF' ? '; it is closed: close its pools before it' : ''
          warn('SPILLWAY_DROP_FAILED', `backup ${this.name} did not drop pages${hint}`, String(failure))
        }
        this.dropFailures += countHandles(runs)
        this.dropFailure = asError(failure)
        // A handle that is not live never will be again.
        if (!isStale(failure)) for (const run of runs) this.#refused.push(run)
      }
    }
    this.#dropping = undefined
  }

  async #dropRefused(): Promise<void> {
    if (this.#refused.length === 0) return
    const runs = this.#refused
    this.#refused = []
    for (const run of runs) {
      try {
        await this.backup.drop([run])
      } catch (failure) {
        // Released after all, although its answer was a failure: then that is all there is to it.
        if (!isStale(failure)) {
          this.#refused.push(run)
          continue
        }
      }
      this.dropFailures -= run.count
    }
  }
}

function isStale(failure: unknown): boolean {
  return isSpillwayError(failure) && failure.code === 'ESTALE'
}

/** Codes of failures that pass without anybody doing anything. */
const passing: ReadonlySet<string> = new Set(['EAGAIN', 'EBUSY', 'EINTR', 'ETIMEDOUT'])

function broken(store: BackingStore, what: string): BackupResult {
  return { handles: [], error: brokenError(store, what) }
}

function brokenError(store: BackingStore, what: string): SpillwayError {
  return new SpillwayError('EIO', `backup ${store.name} broke its contract: ${what}`, { backup: store.name })
}

function isPrefix(copied: number, pageCount: number): boolean {
  return Number.isInteger(copied) && copied >= 0 && copied <= pageCount
}

/** Who has pages copied. */
export interface CopyWaiter {
  readonly pageCount: number
  /** Told of the prefix that arrived, and of what stopped it. */
  copyEnded(copied: number, error: Error | undefined): void
}

export function asError(failure: unknown): Error {
  return failure instanceof Error ? failure : new Error(String(failure), { cause: failure })
}
