import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import {
  type HostTimer,
  isSpillwayError,
  orAbort,
  SpillwayError,
  startTimer,
  stopTimer,
} from '@spillway/core'
import type { Settings } from '../options.ts'
import { maxSegmentNumber } from '../segments/handles.ts'
import type { SegmentOwner } from '../segments/segment-writer.ts'
import type { LeaseTerm } from './lease-term.ts'

/** How long who gave up opening is kept waiting until what he claimed is given back. */
export const hurryMs = 1000

/**
 * Who owns an epoch, and for how long: what owners of scratch and of persistent stores have in common.
 *
 *   held ──(renewed every third of its time)──▶ held
 *     │ late: nobody relies on it before it was renewed again
 *     └──(another owns the pages)──▶ lost: every call fails with EBADF, nothing is deleted any more
 *
 * A renewal is shared by all who wait for it, so no caller's abort ends it.
 */
export abstract class Owner implements SegmentOwner {
  abstract readonly epoch: string
  readonly generation = randomBytes(4).readUInt32LE()
  renewals = 0
  /** Numbers of segments that were taken and are not yet settled. */
  readonly underway = new Set<number>()
  protected readonly settings: Settings
  protected readonly term: LeaseTerm
  protected nextNumber: number
  protected isEnded = false
  #lost: SpillwayError | undefined
  #renewal: Promise<void> | undefined
  #timer: HostTimer | undefined

  protected constructor(settings: Settings, term: LeaseTerm, nextNumber: number) {
    this.settings = settings
    this.term = term
    this.nextNumber = nextNumber
  }

  get isLost(): boolean {
    return this.#lost !== undefined
  }

  /** The number that the next segment gets. */
  get nextSegmentNumber(): number {
    return this.nextNumber
  }

  /** A number for a segment, never given before. Rejects with `EBADF` when the pages are another's, `EFBIG` when all are used. */
  async takeSegmentNumber(signal?: AbortSignal): Promise<number> {
    await this.assertOwned(signal)
    // Writing the lease sets more numbers aside.
    while (!this.hasNumber) await orAbort(this.renew(), signal)
    if (this.nextNumber > maxSegmentNumber) {
      throw new SpillwayError('EFBIG', 'all segment numbers are used up', { backup: this.settings.name })
    }
    this.underway.add(this.nextNumber)
    return this.nextNumber++
  }

  settled(segmentNumber: number): void {
    this.underway.delete(segmentNumber)
  }

  /** Resolves when nobody else can have owned the pages before this call; rejects with `EBADF` when somebody may have. */
  async assertOwned(signal?: AbortSignal): Promise<void> {
    this.assertNotLost()
    if (this.term.isValid) return
    // One that is under way may have been written before what the caller has to be sure of.
    const earlier = this.#renewal
    await orAbort(this.renew(), signal)
    if (earlier !== undefined && !this.term.isValid) await orAbort(this.renew(), signal)
    this.assertNotLost()
  }

  /** Writes the lease anew. Who comes while it is being written waits for that. */
  renew(): Promise<void> {
    this.#renewal ??= this.#renewOnce().finally(() => {
      this.#renewal = undefined
    })
    return this.#renewal
  }

  /** Starts renewing in the background. The timer does not keep the process alive. */
  start(): void {
    stopTimer(this.#timer)
    this.#timer = startTimer(() => {
      // A failure shows at the next call that needs the lease; until then it is tried again.
      this.renew()
        .catch(() => {})
        .finally(() => {
          if (!this.isEnded && this.#lost === undefined) this.start()
        })
    }, this.settings.leaseMs / 3)
    this.#timer.unref?.()
  }

  /** Stops renewing, as a process that dies does. */
  abandon(): void {
    this.isEnded = true
    stopTimer(this.#timer)
  }

  /** Ends the lease; nothing is done any more when it was lost. `inHurry`: not for longer than `hurryMs`. */
  release(inHurry = false): Promise<void> {
    return this.giveUp(inHurry ? AbortSignal.abort() : undefined)
  }

  /** As `release`, for a store that could not be opened: not for longer than `hurryMs` once `signal` is aborted. */
  async giveUp(signal: AbortSignal | undefined): Promise<void> {
    this.abandon()
    if (!signal?.aborted) await orAbort(this.#renewal ?? Promise.resolve(), signal).catch(() => {})
    if (this.#lost !== undefined) return
    const end = new AbortController()
    const hurry = () => {
      startTimer(() => end.abort(), hurryMs).unref?.()
    }
    if (signal?.aborted) hurry()
    else signal?.addEventListener('abort', hurry, { once: true })
    await this.giveBack(signal && end.signal).finally(() => signal?.removeEventListener('abort', hurry))
  }

  /** Whether the next number may be given. */
  protected get hasNumber(): boolean {
    return true
  }

  /** Writes the lease anew, and finds out whether another has the pages when it came late. */
  protected abstract writeLease(): Promise<void>
  /** Lets others know that this owner has ended. */
  protected abstract giveBack(signal: AbortSignal | undefined): Promise<void>

  protected assertNotLost(): void {
    if (this.#lost !== undefined) throw this.#lost
  }

  protected lose(why: string): SpillwayError {
    const text = `backup ${this.settings.name} lost its pages to another process: ${why}`
    this.#lost ??= new SpillwayError('EBADF', text, { backup: this.settings.name })
    return this.#lost
  }

  async #renewOnce(): Promise<void> {
    this.assertNotLost()
    await this.writeLease()
    this.renewals++
  }
}

/** Names a process to people who look into the bucket. */
export function ownerName(): string {
  return `${hostname()} ${process.pid}`
}

/** Whether an error says that someone else holds the key. */
export function isTaken(error: unknown): boolean {
  return isSpillwayError(error) && error.code === 'EEXIST'
}
