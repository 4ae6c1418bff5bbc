import { CallGate } from '../call-gate.ts'
import type {
  Backup,
  BackupCapabilities,
  BackupPagesOptions,
  BackupResult,
  BackupStats,
  CopyDone,
  CopyResult,
  HandleRun,
  ImageStore,
  Reservation,
  TransferOptions,
} from '../contract.ts'
import { tellCopied } from '../copy-done.ts'
import { type ErrorCode, SpillwayError } from '../errors.ts'
import { delay } from '../host/timers.ts'
import { firstHandles, firstSpans } from '../runs.ts'
import { assertByteCount, countCopy, countHandles, countPages, countStartedCopy } from '../validation.ts'
import { type DrawnFault, FaultSource } from './fault-source.ts'
import { assertFault, assertPlan, type Fault, type FaultMethod, type FaultPlan } from './plan.ts'
import { stopAfter } from './prefix.ts'
import { type Drawn, RefusedCopies } from './refused-copies.ts'

/** A call that a faulty backup saw. */
export interface RecordedCall {
  readonly method: FaultMethod
  /** The how many-th call of this method, from 1. */
  readonly call: number
  /** Pages that the caller asked to move or drop. */
  readonly pages: number
  /** The code it was made to fail with, if it was. */
  readonly code: ErrorCode | undefined
  /** Pages after which it was made to stop. */
  readonly stoppedAfter: number | undefined
  readonly delayMs: number
}

/** A backup that fails as planned, and otherwise is the one inside. */
export interface FaultyBackup extends Backup {
  /** Give it to a plan to see the same faults again. */
  readonly seed: number
  /** What it saw, oldest first. */
  readonly calls: readonly RecordedCall[]
  /** Calls of a method so far, forgotten ones included. */
  callsOf(method: FaultMethod): number
  /** Adds faults to the plan from now on; `{ method, times: 1 }` is for the next call. */
  inject(...faults: Fault[]): void
  /** Nothing goes wrong any more. */
  heal(): void
}

/**
 * Puts faults between a caller and a backup (T44). A faulty call keeps the contract: the prefix that it tells of was
 * really moved by the backup inside, and the rest was not touched. `drop`, `bytesAvailable`, `reserve` and the calls of
 * `images` (`save`, `load`, `remove`) fail before they do anything; `close` closes the backup inside and then fails. `EINTR` strikes only calls that carry a signal
 * (T44). Throws `TypeError` or `RangeError` for a plan that makes no sense.
 */
export function faultyBackup(inner: Backup, plan: FaultPlan = {}): FaultyBackup {
  assertPlan(plan)
  return new FaultInjector(inner, plan)
}

class FaultInjector implements FaultyBackup {
  readonly calls: RecordedCall[] = []
  readonly #inner: Backup
  readonly #source: FaultSource
  readonly #gate: CallGate
  readonly #refused = new RefusedCopies()
  readonly #wait: (delayMs: number) => Promise<void>
  readonly #maxRecordedCalls: number
  readonly images?: ImageStore

  constructor(inner: Backup, plan: FaultPlan) {
    this.#inner = inner
    this.#source = new FaultSource(plan)
    this.#gate = new CallGate(inner.name)
    this.#wait = plan.wait ?? delay
    this.#maxRecordedCalls = plan.maxRecordedCalls ?? 10_000
    if (inner.images !== undefined) this.images = this.#imagesOf(inner.images)
  }

  get seed(): number {
    return this.#source.seed
  }

  get name(): string {
    return this.#inner.name
  }

  get capabilities(): BackupCapabilities {
    return this.#inner.capabilities
  }

  callsOf(method: FaultMethod): number {
    return this.#source.countOf(method)
  }

  inject(...faults: Fault[]): void {
    for (const fault of faults) assertFault(fault)
    this.#source.add(faults)
  }

  heal(): void {
    this.#source.clear()
  }

  async backupPages(spans: readonly Uint8Array[], options: BackupPagesOptions = {}): Promise<BackupResult> {
    const { pageSizeBytes } = this.capabilities
    const pages = countPages(spans, pageSizeBytes)
    return this.#gate.run(async () => {
      const fault = struckBy(this.#source.draw('backupPages', pages), options)
      const stop = fault === undefined ? pages : stopAfter(fault.stop, spans, pageSizeBytes)
      this.#record('backupPages', pages, fault, stop)
      if (fault !== undefined) await this.#delay(fault)
      if (fault?.code === undefined || stop === pages || options.signal?.aborted)
        return this.#inner.backupPages(spans, options)
      // With nothing to store the call still goes in: it may be refused for its options.
      const result = await this.#inner.backupPages(firstSpans(spans, stop, pageSizeBytes), options)
      return { handles: result.handles, error: result.error ?? this.#error(fault, 'backupPages', stop) }
    })
  }

  async copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions = {},
  ): Promise<CopyResult> {
    const { pageSizeBytes } = this.capabilities
    const pages = countCopy(handles, spans, pageSizeBytes)
    return this.#gate.run(async () => {
      const drawn = this.#refused.take(handles[0]?.first) ?? this.#drawFor('copyPages', pages)
      const fault = struckBy(drawn.fault, options)
      const stop = fault === undefined ? pages : stopAfter(fault.stop, spans, pageSizeBytes)
      this.#record('copyPages', pages, fault, stop, drawn.call)
      if (fault !== undefined) await this.#delay(fault)
      if (fault?.code === undefined || stop === pages || options.signal?.aborted)
        return this.#inner.copyPages(handles, spans, options)
      const prefix = firstSpans(spans, stop, pageSizeBytes)
      const result = await this.#inner.copyPages(firstHandles(handles, stop), prefix, options)
      return { copied: result.copied, error: result.error ?? this.#error(fault, 'copyPages', stop) }
    })
  }

  /**
   * Draws as `copyPages` does, once for a copy however it is made: what was drawn for one that could not be started counts
   * for the `copyPages` of the same handle that follows. A copy that meets a delay or an interruption is not started.
   */
  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    const { pageSizeBytes } = this.capabilities
    const pages = countStartedCopy(first, span, done, pageSizeBytes)
    if (!this.#gate.enter()) return false
    const drawn = this.#drawFor('copyPages', pages)
    let began = false
    try {
      began = this.#startCopy(first, span, drawn, done)
    } finally {
      if (!began) {
        this.#refused.put(first, drawn)
        this.#gate.leave()
      }
    }
    return began
  }

  #startCopy(first: number, span: Uint8Array, { fault, call }: Drawn, done: CopyDone): boolean {
    const { pageSizeBytes } = this.capabilities
    const pages = span.byteLength / pageSizeBytes
    const needsCall = fault !== undefined && (fault.delayMs > 0 || fault.code === 'EINTR')
    if (this.#inner.startCopy === undefined || needsCall) return false
    const stop = fault?.code === undefined ? pages : stopAfter(fault.stop, [span], pageSizeBytes)
    const end = (copied: number, error?: Error): void => {
      this.#record('copyPages', pages, fault, stop, call)
      const failure = stop < pages && fault !== undefined ? this.#error(fault, 'copyPages', stop) : undefined
      tellCopied(done, copied, error ?? failure)
      this.#gate.leave()
    }
    if (stop > 0) return this.#inner.startCopy(first, span.subarray(0, stop * pageSizeBytes), end)
    end(0)
    return true
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    const pages = countHandles(handles)
    return this.#gate.run(async () => {
      await this.#strike('drop', pages)
      return this.#inner.drop(handles)
    })
  }

  bytesAvailable(): Promise<number> {
    return this.#gate.run(async () => {
      await this.#strike('bytesAvailable', 0)
      return this.#inner.bytesAvailable()
    })
  }

  async reserve(bytes: number): Promise<Reservation> {
    assertByteCount(bytes, 'bytes')
    return this.#gate.run(async () => {
      await this.#strike('reserve', 0)
      return this.#inner.reserve(bytes)
    })
  }

  #imagesOf(images: ImageStore): ImageStore {
    const struck = <Result>(method: FaultMethod, call: () => Promise<Result>): Promise<Result> =>
      this.#gate.run(async () => {
        await this.#strike(method, 0)
        return call()
      })
    return {
      save: (name, content) => struck('save', () => images.save(name, content)),
      load: (name) => struck('load', () => images.load(name)),
      names: () => this.#gate.run(() => images.names()),
      remove: (name) => struck('remove', () => images.remove(name)),
    }
  }

  stats(): BackupStats {
    return this.#inner.stats()
  }

  close(): Promise<void> {
    return this.#gate.close(async () => {
      const fault = this.#source.draw('close', 0)
      this.#record('close', 0, fault, 0)
      if (fault !== undefined) await this.#delay(fault)
      await this.#inner.close()
      if (fault?.code !== undefined) throw this.#error(fault, 'close')
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Makes a call fail that does all or nothing. */
  async #strike(method: FaultMethod, pages: number): Promise<void> {
    const fault = this.#source.draw(method, pages)
    this.#record(method, pages, fault, 0)
    if (fault === undefined) return
    await this.#delay(fault)
    if (fault.code !== undefined) throw this.#error(fault, method)
  }

  #drawFor(method: FaultMethod, pages: number): Drawn {
    const fault = this.#source.draw(method, pages)
    return { fault, call: this.#source.countOf(method) }
  }

  #record(
    method: FaultMethod,
    pages: number,
    fault: DrawnFault | undefined,
    stop: number,
    call = this.#source.countOf(method),
  ): void {
    const code = pages > 0 && stop === pages ? undefined : fault?.code
    this.calls.push({
      method,
      call,
      pages,
      code,
      stoppedAfter: code === undefined ? undefined : stop,
      delayMs: fault?.delayMs ?? 0,
    })
    if (this.calls.length > this.#maxRecordedCalls) this.calls.shift()
  }

  async #delay({ delayMs }: DrawnFault): Promise<void> {
    if (delayMs > 0) await this.#wait(delayMs)
  }

  #error(fault: DrawnFault, method: FaultMethod, page?: number): SpillwayError {
    const message = `injected into call ${fault.call} of ${method}, seed ${this.seed}`
    return new SpillwayError(fault.code ?? 'EIO', message, { backup: this.name, page })
  }
}

/** What a call meets: it can only be interrupted when it carries a signal (T44). */
function struckBy(fault: DrawnFault | undefined, options: TransferOptions): DrawnFault | undefined {
  const cannotBeInterrupted = fault?.code === 'EINTR' && options.signal === undefined
  return cannotBeInterrupted ? { ...fault, code: undefined } : fault
}
