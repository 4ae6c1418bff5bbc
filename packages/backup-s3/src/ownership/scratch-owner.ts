import { randomBytes } from 'node:crypto'
import { nowMs, SpillwayError } from '@spillway/core'
import { type KeySpace, scratchEpoch } from '../keys.ts'
import type { Settings } from '../options.ts'
import { firstSegmentNumber } from '../segments/handles.ts'
import type { S3Service } from '../service/service.ts'
import { delay } from '../service/waiting.ts'
import { clockResolutionMs, LeaseTerm, momentNow } from './lease-term.ts'
import { hurryMs, Owner, ownerName } from './owner.ts'
import { decodeSummed, encodeSummed } from './summed-json.ts'

/** How long an owner that came late waits at most for a fence to go away again; short leases wait less. */
const longestFenceWaitMs = 5000

const leaseFormat = 2

export interface LeaseContent {
  readonly format: typeof leaseFormat
  readonly epoch: string
  readonly name: string
  readonly leaseMs: number
  /** For people who look into the bucket. */
  readonly owner: string
}

/**
 * The owner of a scratch store. Its epoch has a random name, so nobody else ever writes there; what others may do is
 * sweep it, once its lease ran out.
 *
 * Owner and sweeper both write first and read afterwards: the owner its lease and then the fences, the sweeper its fence
 * and then the lease. So one of them sees the other, and at worst both step back.
 *
 * A renewal can be under way for so long that the sweep is over and its fence gone before the lease is written again.
 * The witness tells: an object of the epoch that nobody but a sweep deletes, before anything else and before the fence
 * goes. One that was written after the store was opened is no witness, but a request for it that came late.
 */
export class ScratchOwner extends Owner {
  readonly epoch: string
  readonly #service: S3Service
  readonly #keys: KeySpace
  readonly #key: string
  /** What the service's clock said when the witness was there; undefined where it does not say. */
  #openedMs: number | undefined

  private constructor(epoch: string, settings: Settings, service: S3Service, keys: KeySpace) {
    // Whoever sweeps goes by the service's clock and by nothing else.
    const term = new LeaseTerm(settings.leaseMs, service.clock, { countsSleep: false })
    super(settings, term, firstSegmentNumber(Math.random()))
    this.epoch = epoch
    this.#service = service
    this.#keys = keys
    this.#key = keys.lease(epoch)
  }

  /** Begins a new epoch: writes its lease and its witness. */
  static async create(
    settings: Settings,
    service: S3Service,
    keys: KeySpace,
    signal?: AbortSignal,
  ): Promise<ScratchOwner> {
    const owner = new ScratchOwner(scratchEpoch(randomBytes(12).toString('hex')), settings, service, keys)
    await owner.#create(signal)
    try {
      const identity = randomBytes(12).toString('hex')
      await service.upload(owner.#witness, Buffer.from('{}'), { identity, free: true, signal })
      // A sweep that began before the witness was there has none to delete: nothing would tell of what it deletes later.
      if (!owner.term.isValid) {
        const text = `opening took longer than leaseMs (${settings.leaseMs}), so that others may take the store for left behind`
        throw new SpillwayError('ETIMEDOUT', text, { backup: settings.name, retryable: true })
      }
      owner.#openedMs = service.clock.latestMs
    } catch (error) {
      await owner.giveUp(signal).catch(() => {})
      throw error
    }
    return owner
  }

  protected override async writeLease(): Promise<void> {
    const start = momentNow()
    let isLate = !this.term.isValid
    let date: number | undefined
    const onDate = (time: number) => {
      date = time
    }
    await this.#service.overwrite(this.#key, this.content, { urgent: true, onDate })
    // Also when the answer took so long that the lease ran out meanwhile.
    isLate ||= !this.term.isValid
    if (isLate) await this.#assertUnfenced()
    this.term.begin(start, date === undefined ? undefined : date - (nowMs() - start.steadyMs))
  }

  protected override async giveBack(signal: AbortSignal | undefined): Promise<void> {
    const scope = { signal, urgent: true }
    const remove = (key: string) => this.#service.retry.run(scope, () => this.#service.deleteOne(key, scope))
    await remove(this.#witness)
    await remove(this.#key)
  }

  get #witness(): string {
    return this.#keys.witness(this.epoch)
  }

  async #create(signal: AbortSignal | undefined): Promise<void> {
    const start = momentNow()
    const identity = randomBytes(12).toString('hex')
    let date: number | undefined
    const onDate = (time: number) => {
      date = time
    }
    try {
      await this.#service.upload(this.#key, this.content, { identity, urgent: true, signal, onDate })
    } catch (error) {
      // It may be there all the same, and would be swept no sooner than it ran out.
      if (signal?.aborted) {
        const hurry = { signal: AbortSignal.timeout(hurryMs), urgent: true, retryMayFail: true }
        const found = await this.#service.head(this.#key, hurry).catch(() => undefined)
        if (found?.identity === identity) await this.release(true).catch(() => {})
      }
      throw error
    }
    this.term.begin(start, date === undefined ? undefined : date - (nowMs() - start.steadyMs))
  }

  async #assertUnfenced(): Promise<void> {
    const deadline = nowMs() + Math.min(longestFenceWaitMs, Math.max(1000, this.settings.leaseMs))
    for (;;) {
      const fence = await this.#findFence()
      const isSwept = fence === undefined && !(await this.#hasWitness())
      if (fence === undefined && !isSwept) return
      if (isSwept || nowMs() > deadline) {
        // The lease that was just written must not keep a dead epoch alive.
        await this.#service.deleteOne(this.#key, { urgent: true }).catch(() => {})
        throw this.lose(
          isSwept ? 'its lease ran out and it was swept' : `its lease ran out and ${fence} was written`,
        )
      }
      await delay(200)
    }
  }

  /**
   * Whether the witness is the one that was written at first. A sweep comes more than a lease after the last page was
   * acknowledged, and so does what is written after it.
   */
  async #hasWitness(): Promise<boolean> {
    const found = await this.#service.head(this.#witness, { urgent: true })
    if (found === undefined) return false
    if (found.lastModified === undefined || this.#openedMs === undefined) return true
    return found.lastModified <= this.#openedMs + clockResolutionMs
  }

  async #findFence(): Promise<string | undefined> {
    for await (const { key } of this.#service.list(this.#key, { urgent: true })) {
      const parsed = this.#keys.parse(key)
      if (parsed?.kind === 'fence' && parsed.epoch === this.epoch) return key
    }
    return undefined
  }

  /** What the lease says. */
  get content(): Buffer {
    const { name, leaseMs } = this.settings
    const content: LeaseContent = {
      format: leaseFormat,
      epoch: this.epoch,
      name,
      leaseMs,
      owner: ownerName(),
    }
    return encodeSummed(content)
  }
}

/**
 * The content of a lease object; undefined when it is not there, `'unreadable'` when it is and cannot be understood:
 * damaged twice, or of a newer format. Unreadable is not dead.
 */
export async function readLease(
  service: S3Service,
  key: string,
  signal?: AbortSignal,
): Promise<{ content: LeaseContent; lastModified: number | undefined } | 'unreadable' | undefined> {
  for (let attempt = 0; attempt < 2; attempt++) {
    const object = await service.read(key, { urgent: true, signal })
    if (object === undefined) return undefined
    try {
      const decoded = decodeSummed(object.body)
      const content = decoded.content as LeaseContent
      // One bit in a number would be a shorter lease: its owner would be taken for dead.
      if (decoded.isWhole && content.format === leaseFormat && Number.isFinite(content.leaseMs))
        return { content, lastModified: object.lastModified }
    } catch {}
  }
  return 'unreadable'
}
