import { type HostTimer, isSpillwayError, nowMs, SpillwayError, startTimer, stopTimer } from '@spillway/core'
import type { Settings } from '../options.ts'
import type { RequestScope } from '../service/request-scope.ts'
import type { S3Service } from '../service/service.ts'
import { delay } from '../service/waiting.ts'

/** Keys that one DeleteObjects takes. */
const keysPerRequest = 1000

/**
 * Deletes objects in the background, in batches, outside the way of those who dropped the pages.
 *
 *   add ─▶ held ─(a manifest without it counts)─▶ gathered ──(delay, or a thousand)──▶ DeleteObjects ─▶ per-key errors
 *              persistent stores only                 ▲                                                    │
 *                                                     └──────────────── again, later and later ◀───────────┘
 *
 * Of a persistent store nothing is deleted that the next owner could need: an object waits until the head names a manifest
 * that was begun after it became garbage. From then on no owner will ever look for it, however late the request arrives.
 * An owner that lost its store deletes nothing any more.
 *
 * It also remembers keys whose upload failed: the object may be there, and a request that hung may still bring it
 * into being. They are deleted as others are and looked after again at close.
 */
export class Deletions {
  deleted = 0
  /** Per-key and per-request failures. */
  failures = 0
  lastError: Error | undefined
  /** Called when something waits for a manifest. */
  onHeld: () => void = () => {}
  /** Rejects when the objects may be another's by now. */
  guard: () => Promise<void> = async () => {}
  /** Whether they are: then they are not this owner's to delete, or to count. */
  isLost: () => boolean = () => false
  readonly #settings: Settings
  readonly #service: S3Service
  /** Keys and their bytes. */
  readonly #waiting = new Map<string, number>()
  #held = new Map<string, number>()
  /** Of manifests that are being written. */
  readonly #taken = new Set<ReadonlyMap<string, number>>()
  readonly #expected = new Set<string>()
  readonly #uncertain = new Set<string>()
  #timer: HostTimer | undefined
  #running: Promise<void> | undefined
  #failuresInARow = 0
  #isClosing = false

  constructor(settings: Settings, service: S3Service) {
    this.#settings = settings
    this.#service = service
  }

  /** Objects that are dropped and not yet gone. */
  get pending(): number {
    if (this.isLost()) return 0
    let objects = this.#waiting.size + this.#held.size
    for (const { size } of this.#taken) objects += size
    return objects
  }

  /** Objects that wait for a manifest. */
  get heldObjects(): number {
    return this.#held.size
  }

  /** Their bytes. */
  get pendingBytes(): number {
    let bytes = 0
    if (this.isLost()) return bytes
    for (const objects of [this.#waiting, this.#held, ...this.#taken])
      for (const objectBytes of objects.values()) bytes += objectBytes
    return bytes
  }

  /** Deletes an object some time soon. */
  add(key: string, bytes = 0): void {
    if (this.isLost()) return
    if (this.#settings.persistent) {
      this.#held.set(key, bytes)
      this.onHeld()
    } else this.#gather(key, bytes)
  }

  /** What waits for a manifest, for one that is begun now: `release` it when that counts, else `hold` it again. */
  takeHeld(): ReadonlyMap<string, number> {
    const held = this.#held
    this.#held = new Map()
    this.#taken.add(held)
    return held
  }

  hold(taken: ReadonlyMap<string, number>): void {
    if (!this.#taken.delete(taken)) return
    for (const [key, bytes] of taken) this.#held.set(key, bytes)
  }

  release(taken: ReadonlyMap<string, number>): void {
    if (!this.#taken.delete(taken)) return
    for (const [key, bytes] of taken) this.#gather(key, bytes)
  }

  /** Deletes an object that the head does not name any more. */
  addUnnamed(key: string): void {
    this.#gather(key, 0)
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
   * Deletes all that waits and is not held, trying for as long as the retry policy allows since something last went.
   * @throws the service's error when something is left
   */
  async drain(): Promise<void> {
    this.#isClosing = true
    let deadline = this.#service.retry.deadline()
    for (let least = Number.POSITIVE_INFINITY; ; ) {
      stopTimer(this.#timer)
      this.#timer = undefined
      await this.#running
      if (this.#waiting.size === 0) return
      this.#start()
      await this.#running
      if (this.#waiting.size === 0) return
      const error = this.lastError
      const isFinal = isSpillwayError(error) && !error.retryable
      if (this.#waiting.size < least) deadline = this.#service.retry.deadline()
      least = Math.min(least, this.#waiting.size)
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

  /** Begins no request any more; what is left is for the next owner, or a sweep. */
  stop(): void {
    this.#isClosing = true
    stopTimer(this.#timer)
    this.#timer = undefined
  }

  #gather(key: string, bytes: number): void {
    this.#waiting.set(key, bytes)
    const isFull = this.#waiting.size >= keysPerRequest
    // Also when many wait: a service that refuses is not asked once for each of them.
    if (isFull && this.#failuresInARow === 0 && !this.#isClosing) this.#start()
    else this.#schedule(this.#pauseMs)
  }

  get #pauseMs(): number {
    return this.#failuresInARow === 0 ? this.#settings.deleteDelayMs : this.#backoffMs
  }

  /** Later and later, up to a minute with the defaults. */
  get #backoffMs(): number {
    const { retryBaseMs, retryMaxMs } = this.#settings
    return Math.min(30 * retryMaxMs, Math.max(1, retryBaseMs) * 2 ** Math.min(30, this.#failuresInARow))
  }

  #schedule(milliseconds: number): void {
    if (this.#timer !== undefined || this.#running !== undefined || this.#isClosing) return
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
      if (this.#waiting.size > 0) this.#schedule(this.#pauseMs)
    })
  }

  /** Goes once through what waits now. */
  async #run(): Promise<void> {
    const keys = [...this.#waiting.keys()]
    for (let start = 0; start < keys.length; start += keysPerRequest) {
      const batch = keys.slice(start, start + keysPerRequest)
      try {
        await this.guard()
        const failed = await this.#service.deleteMany(batch)
        for (const key of batch) if (!failed.has(key)) this.#waiting.delete(key)
        this.deleted += batch.length - failed.size
        this.failures += failed.size
        for (const error of failed.values()) this.lastError = error
        this.#failuresInARow = failed.size === 0 ? 0 : this.#failuresInARow + 1
      } catch (error) {
        if (isSpillwayError(error) && error.code === 'EBADF') this.#forget()
        this.failures++
        this.#failuresInARow++
        this.lastError = error as Error
        return
      }
    }
  }

  /** The objects are another's: whoever has them deletes what is not needed. */
  #forget(): void {
    this.#waiting.clear()
    this.#held.clear()
    this.#taken.clear()
  }
}

/** Deletes keys and looks at every answer; each batch is tried for as long as the retry policy allows. */
export async function deleteAll(
  service: S3Service,
  keys: readonly string[],
  { guard, ...scope }: RequestScope & { guard?: () => Promise<void> } = {},
): Promise<void> {
  for (let start = 0; start < keys.length; start += keysPerRequest) {
    await guard?.()
    let left = keys.slice(start, start + keysPerRequest)
    await service.retry.run(scope, async () => {
      const failed = await service.deleteMany(left, scope)
      left = [...failed.keys()]
      const [error] = failed.values()
      if (error !== undefined) throw error
    })
  }
}
