import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { type HostTimer, isSpillwayError, nowMs, SpillwayError, startTimer, stopTimer } from '@spillway/core'
import { type KeySpace, persistentCount, persistentEpoch, scratchEpoch, storePrefix } from '../keys.ts'
import type { Settings } from '../options.ts'
import { firstSegmentNumber, maxSegmentNumber } from '../segments/handles.ts'
import type { SegmentOwner } from '../segments/segment-writer.ts'
import type { S3Service } from '../service/service.ts'
import { delay } from '../service/waiting.ts'

/**
 * Who owns an epoch, and for how long.
 *
 *   created (If-None-Match: *) ─▶ held ──(renewed every third of its time)──▶ held
 *                                  │ not renewed in time
 *                                  ▼
 *                                late ──(renewed, and no fence is there)──▶ held
 *                                  │ a fence, or a successor, is there
 *                                  ▼
 *                                lost: every call fails with EBADF
 *
 * An owner and someone who believes it dead both write first and read afterwards: the owner its lease and then the
 * fences, the sweeper its fence and then the lease. So one of them sees the other, and at worst both step back. Whether
 * a lease has run out is judged by the service's clock alone.
 *
 * A renewal can be under way for so long that the sweep is over and its fence gone before the lease is written again.
 * The witness tells: an object of the epoch that nobody but a sweep deletes, and before the fence goes. A persistent
 * store needs none, since the successor's lease stays.
 */

/** `Last-Modified` has whole seconds. */
const clockResolutionMs = 1000
/** How long an owner that came late waits at most for a fence to go away again; short leases wait less. */
const longestFenceWaitMs = 5000

/** How long who gave up opening is kept waiting for the lease to be removed. */
const hurryMs = 1000

export interface LeaseContent {
  readonly format: 1
  readonly epoch: string
  readonly name: string
  readonly leaseMs: number
  readonly persistent: boolean
  /** Its owner has ended in an orderly way. */
  readonly closed: boolean
  /** For people who look into the bucket. */
  readonly owner: string
}

export class Lease implements SegmentOwner {
  readonly epoch: string
  readonly generation = randomBytes(4).readUInt32LE()
  readonly #settings: Settings
  readonly #service: S3Service
  readonly #keys: KeySpace
  readonly #key: string
  #nextNumber = firstSegmentNumber(Math.random())
  /** Until then nobody may believe it dead; of `performance.now()`. */
  #validUntil = 0
  #lost: SpillwayError | undefined
  #renewal: Promise<void> | undefined
  #timer: HostTimer | undefined
  #released = false
  renewals = 0
  /** Numbers that were taken and are not yet settled. */
  readonly underway = new Set<number>()

  private constructor(epoch: string, settings: Settings, service: S3Service, keys: KeySpace) {
    this.epoch = epoch
    this.#settings = settings
    this.#service = service
    this.#keys = keys
    this.#key = keys.lease(epoch)
  }

  /** Begins a new epoch of a scratch store. */
  static async createScratch(
    settings: Settings,
    service: S3Service,
    keys: KeySpace,
    signal?: AbortSignal,
  ): Promise<Lease> {
    const lease = new Lease(scratchEpoch(randomBytes(12).toString('hex')), settings, service, keys)
    await lease.#create(signal)
    try {
      const identity = randomBytes(12).toString('hex')
      await service.upload(lease.#witness, Buffer.from('{}'), { identity, free: true, signal })
    } catch (error) {
      await lease.withdraw(signal?.aborted).catch(() => {})
      throw error
    }
    return lease
  }

  /** Begins the epoch after `count`; `EEXIST` when somebody else was faster. */
  static async claimPersistent(
    count: number,
    settings: Settings,
    service: S3Service,
    keys: KeySpace,
    signal?: AbortSignal,
  ): Promise<Lease> {
    const lease = new Lease(persistentEpoch(count), settings, service, keys)
    await lease.#create(signal)
    return lease
  }

  get isLost(): boolean {
    return this.#lost !== undefined
  }

  takeSegmentNumber(): number {
    if (this.#nextNumber > maxSegmentNumber) {
      throw new SpillwayError('EFBIG', 'all segment numbers are used up', { backup: this.#settings.name })
    }
    this.underway.add(this.#nextNumber)
    return this.#nextNumber++
  }

  settled(segmentNumber: number): void {
    this.underway.delete(segmentNumber)
  }

  /** The number that the next segment gets. */
  get nextSegmentNumber(): number {
    return this.#nextNumber
  }

  /** Goes on after the numbers that an attached store has used. */
  continueAfter(number: number): void {
    this.#nextNumber = number + 1
  }

  async assertOwned(signal?: AbortSignal): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost
    if (nowMs() < this.#validUntil) return
    await this.renew(signal)
  }

  /** Starts renewing in the background. The timer does not keep the process alive. */
  start(): void {
    const { leaseMs } = this.#settings
    this.#timer = startTimer(() => {
      // A failure shows at the next call that needs the lease; until then it is tried again.
      this.renew()
        .catch(() => {})
        .finally(() => {
          if (!this.#released && this.#lost === undefined) this.start()
        })
    }, leaseMs / 3)
    this.#timer.unref?.()
  }

  /** Writes the lease anew, and looks for fences when it came late. */
  renew(signal?: AbortSignal): Promise<void> {
    this.#renewal ??= this.#renewOnce(signal).finally(() => {
      this.#renewal = undefined
    })
    return this.#renewal
  }

  /** The service's clock when the lease was last written: never ahead of it; undefined where it does not say. */
  async serviceNow(signal?: AbortSignal): Promise<number | undefined> {
    const head = await this.#service.head(this.#key, { free: true, signal })
    if (head === undefined) throw this.#lose('its lease was removed')
    return head.lastModified
  }

  /** Ends the lease. What a persistent store keeps is free for the next owner from now on. */
  async release(): Promise<void> {
    this.#released = true
    stopTimer(this.#timer)
    await this.#renewal?.catch(() => {})
    if (this.#lost !== undefined) return
    if (this.#settings.persistent) await this.#service.overwrite(this.#key, this.#content(true), {})
    else await this.#remove()
  }

  /** Takes back a claim: as if it had never been made. What cannot be removed soon, if in a hurry, runs out. */
  async withdraw(inHurry = false): Promise<void> {
    this.#released = true
    stopTimer(this.#timer)
    await this.#remove(inHurry ? AbortSignal.timeout(hurryMs) : undefined)
  }

  /** Stops renewing without another request, as a process that dies does. */
  abandon(): void {
    this.#released = true
    stopTimer(this.#timer)
  }

  get #witness(): string {
    return this.#keys.witness(this.epoch)
  }

  async #remove(signal?: AbortSignal): Promise<void> {
    const remove = (key: string) =>
      this.#service.retry.run({ signal }, () => this.#service.deleteOne(key, signal))
    if (!this.#settings.persistent) await remove(this.#witness)
    await remove(this.#key)
  }

  async #create(signal: AbortSignal | undefined): Promise<void> {
    const startedAt = nowMs()
    const identity = randomBytes(12).toString('hex')
    try {
      await this.#service.upload(this.#key, this.#content(false), { identity, free: true, signal })
    } catch (error) {
      // It may be there all the same, and would keep others out until it ran out; but another's is not touched.
      if (signal?.aborted) {
        const hurry = { signal: AbortSignal.timeout(hurryMs), free: true, retryMayFail: true }
        const found = await this.#service.head(this.#key, hurry).catch(() => undefined)
        if (found?.identity === identity) await this.withdraw(true).catch(() => {})
      }
      throw error
    }
    this.#validUntil = startedAt + this.#settings.leaseMs
  }

  async #renewOnce(signal: AbortSignal | undefined): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost
    const startedAt = nowMs()
    const isLate = startedAt >= this.#validUntil
    await this.#service.overwrite(this.#key, this.#content(false), { signal })
    // Also when the answer took so long that the lease ran out meanwhile.
    if (isLate || nowMs() >= this.#validUntil) await this.#assertUnfenced(signal)
    this.#validUntil = startedAt + this.#settings.leaseMs
    this.renewals++
  }

  async #assertUnfenced(signal: AbortSignal | undefined): Promise<void> {
    const deadline = nowMs() + Math.min(longestFenceWaitMs, Math.max(1000, this.#settings.leaseMs))
    for (;;) {
      const fence = await this.#findFence(signal)
      const isSwept =
        fence === undefined &&
        !this.#settings.persistent &&
        (await this.#service.head(this.#witness, { signal, free: true })) === undefined
      if (fence === undefined && !isSwept) return
      if (isSwept || nowMs() > deadline) {
        // The lease that was just written must not keep a dead epoch alive.
        await this.#service.deleteOne(this.#key).catch(() => {})
        throw this.#lose(
          isSwept ? 'its lease ran out and it was swept' : `its lease ran out and ${fence} was written`,
        )
      }
      await delay(200, signal)
    }
  }

  async #findFence(signal: AbortSignal | undefined): Promise<string | undefined> {
    const count = persistentCount(this.epoch)
    const prefix = count === undefined ? this.#key : `${this.#keys.leasesPrefix}${storePrefix}`
    for await (const { key } of this.#service.list(prefix, { signal })) {
      const parsed = this.#keys.parse(key)
      if (parsed?.kind === 'fence' && parsed.epoch === this.epoch) return key
      if (count !== undefined && parsed?.kind === 'lease' && persistentCount(parsed.epoch)! > count)
        return key
    }
    return undefined
  }

  #lose(why: string): SpillwayError {
    const text = `backup ${this.#settings.name} lost its pages to another process: ${why}`
    this.#lost ??= new SpillwayError('EBADF', text, { backup: this.#settings.name })
    return this.#lost
  }

  #content(closed: boolean): Buffer {
    const { name, leaseMs, persistent } = this.#settings
    const owner = `${hostname()} ${process.pid}`
    const content: LeaseContent = { format: 1, epoch: this.epoch, name, leaseMs, persistent, closed, owner }
    return Buffer.from(JSON.stringify(content))
  }
}

/** Whether the owner of a lease can be taken for dead. `now` is the service's clock. Of times that are not known, no. */
export function hasRunOut(
  lastModified: number | undefined,
  leaseMs: number,
  now: number | undefined,
): boolean {
  if (lastModified === undefined || now === undefined) return false
  return now > lastModified + leaseMs + clockResolutionMs
}

/**
 * The content of a lease object; undefined when it is not there or not a lease. What came damaged is asked for once
 * more: a lease that is not recognised is no protection.
 */
export async function readLease(
  service: S3Service,
  key: string,
  signal?: AbortSignal,
): Promise<{ content: LeaseContent; lastModified: number | undefined } | undefined> {
  for (let attempt = 0; attempt < 2; attempt++) {
    const object = await service.read(key, { free: true, signal })
    if (object === undefined) return undefined
    try {
      const content = JSON.parse(object.body.toString()) as LeaseContent
      if (content.format === 1) return { content, lastModified: object.lastModified }
    } catch {}
  }
  return undefined
}

/** Whether an error says that someone else holds the key. */
export function isTaken(error: unknown): boolean {
  return isSpillwayError(error) && error.code === 'EEXIST'
}
