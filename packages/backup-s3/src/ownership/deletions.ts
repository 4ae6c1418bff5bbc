import { type HostTimer, isSpillwayError, nowMs, SpillwayError, startTimer, stopTimer } from '@spillway/core'
import type { Settings } from '../options.ts'
import type { S3Service } from '../service/service.ts'
import { delay } from '../service/waiting.ts'

/** Keys that one DeleteObjects takes. */
const keysPerRequest = 1000
/**
 * Deletes objects in the background, in batches, outside the way of those who dropped the pages.
 *
 *   add ─▶ gathered ──(delay, or a thousand)──▶ DeleteObjects ─▶ per-key errors ─▶ again, later and later
 *
 * It also remembers keys whose upload failed: the object may be there, and a request that hung may still bring it
 * into being. They are deleted at once and looked after again at close.
 */
export class Deletions {
  deleted = 0
  /** Per-key and per-request failures. */
  failures = 0
  lastError: Error | undefined
  readonly #settings: Settings
  readonly #service: S3Service
  /** Keys and their bytes. */
  readonly #waiting = new Map<string, number>()
  readonly #expected = new Set<string>()
  readonly #uncertain = new Set<string>()
  #timer: HostTimer | undefined
  #running: Promise<void> | undefined
  #failuresInARow = 0
  #closing = false

  constructor(settings: Settings, service: S3Service) {
    this.#settings = settings
    this.#service = service
  }

  get pending(): number {
    return this.#waiting.size
  }

  /** Bytes of objects that are dropped and not yet gone. */
  get pendingBytes(): number {
    let bytes = 0
    for (const objectBytes of this.#waiting.values()) bytes += objectBytes
    return bytes
  }

  /** Deletes an object some time soon. */
  add(key: string, bytes = 0): void {
    this.#waiting.set(key, bytes)
    if (this.#waiting.size >= keysPerRequest) this.#start()
    else this.#schedule(this.#settings.deleteDelayMs)
  }

  /** An upload is under way. */
  expect(key: string): void {
    this.#expected.add(key)
  }

  /** The upload succeeded. */
  certain(key: string): void {
    this.#expected.delete(key)
  }

  /** The upload failed, and nobody knows whether the object is there. */
  removeUncertain(key: string): void {
    if (!this.#expected.delete(key)) return
    this.#uncertain.add(key)
    this.add(key)
  }

  /** Keys that may have come into being after they were deleted. */
  get uncertainKeys(): ReadonlySet<string> {
    return this.#uncertain
  }

  /**
   * Deletes all that waits, trying for as long as the retry policy allows.
   * @throws the service's error when something is left
   */
  async drain(): Promise<void> {
    this.#closing = true
    const deadline = this.#service.retry.deadline()
    for (;;) {
      stopTimer(this.#timer)
      this.#timer = undefined
      await this.#running
      if (this.#waiting.size === 0) return
      this.#start()
      await this.#running
      if (this.#waiting.size === 0) return
      const error = this.lastError
      const isFinal = isSpillwayError(error) && !error.retryable
      if (isFinal || nowMs() > deadline) {
        throw new SpillwayError(
          isSpillwayError(error) ? error.code : 'EIO',
          `${this.#waiting.size} objects could not be deleted; sweepOrphans() removes them: ${error?.message}`,
          { backup: this.#settings.name, cause: error },
        )
      }
      await delay(Math.min(this.#settings.retryMaxMs, this.#backoffMs))
    }
  }

  /** Later and later, up to a minute with the defaults. */
  get #backoffMs(): number {
    const { retryBaseMs, retryMaxMs } = this.#settings
    return Math.min(30 * retryMaxMs, Math.max(1, retryBaseMs) * 2 ** Math.min(30, this.#failuresInARow))
  }

  #schedule(milliseconds: number): void {
    if (this.#timer !== undefined || this.#running !== undefined || this.#closing) return
    this.#timer = startTimer(() => {
      this.#timer = undefined
      this.#start()
    }, milliseconds)
    this.#timer.unref?.()
  }

  #start(): void {
    if (this.#running !== undefined) return
    this.#running = this.#run().finally(() => {
      this.#running = undefined
      if (this.#waiting.size === 0) return
      this.#schedule(this.#failuresInARow === 0 ? this.#settings.deleteDelayMs : this.#backoffMs)
    })
  }

  /** Goes once through what waits now. */
  async #run(): Promise<void> {
    const keys = [...this.#waiting.keys()]
    for (let start = 0; start < keys.length; start += keysPerRequest) {
      const batch = keys.slice(start, start + keysPerRequest)
      try {
        const failed = await this.#service.deleteMany(batch)
        for (const key of batch) if (!failed.has(key)) this.#waiting.delete(key)
        this.deleted += batch.length - failed.size
        this.failures += failed.size
        for (const error of failed.values()) this.lastError = error
        this.#failuresInARow = failed.size === 0 ? 0 : this.#failuresInARow + 1
      } catch (error) {
        this.failures++
        this.#failuresInARow++
        this.lastError = error as Error
        return
      }
    }
  }
}
