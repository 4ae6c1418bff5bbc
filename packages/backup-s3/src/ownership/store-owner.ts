import { randomBytes } from 'node:crypto'
import { orAbort } from '@spillway/core'
import { persistentEpoch } from '../keys.ts'
import type { Settings } from '../options.ts'
import { firstSegmentNumber } from '../segments/handles.ts'
import type { S3Service } from '../service/service.ts'
import { delay } from '../service/waiting.ts'
import type { Head } from './head.ts'
import type { HeadRegister, HeadVersion } from './head-register.ts'
import { LeaseTerm, type Moment, momentNow } from './lease-term.ts'
import { hurryMs, Owner, ownerName } from './owner.ts'

/** Segment numbers that an owner sets aside at a time; those that it has not given when it dies are never given. */
const numbersPerReserve = 1024

export interface ClaimParts {
  readonly register: HeadRegister
  readonly service: S3Service
  readonly settings: Settings
  readonly signal: AbortSignal | undefined
}

type Change = Partial<Pick<Head, 'state' | 'manifest' | 'parent' | 'nextNumber' | 'emptiedBelow'>>

/**
 * The owner of a persistent store: who made the last change of its head that began an epoch.
 *
 *   free, closed or run out ──(claim)──▶ held ──(renew, publish)──▶ held ──(release)──▶ closed
 *                                          └──(another claimed)──▶ lost
 *
 * Each arrow is a compare-and-set of the head, so a late renewal, a stale claim or a second close fails by itself. One
 * change is made at a time, each from the version that the last one made.
 */
export class StoreOwner extends Owner {
  readonly epoch: string
  readonly #register: HeadRegister
  #current: HeadVersion
  /** Changes of which it is not known whether they were made, by nonce. */
  readonly #unknown = new Map<string, Head>()
  #lastChange: Promise<unknown> = Promise.resolve()

  private constructor(
    { register, service, settings }: ClaimParts,
    claimed: HeadVersion,
    { start, nextNumber }: { start: Moment; nextNumber: number },
  ) {
    super(settings, new LeaseTerm(settings.leaseMs, service.clock, { countsSleep: true }), nextNumber)
    this.epoch = persistentEpoch(claimed.head.epoch)
    this.#register = register
    this.#current = claimed
    this.term.begin(start, claimed.writtenMs)
  }

  /**
   * Begins the epoch after that of `from`, whose owner is gone. Undefined: somebody else was faster.
   * When that fails or is aborted, what was claimed is taken back, if that is possible within a moment; else the lease
   * runs out.
   */
  static async claim(from: HeadVersion | undefined, parts: ClaimParts): Promise<StoreOwner | undefined> {
    const { register, settings, signal } = parts
    const { nextNumber = firstSegmentNumber(Math.random()), emptiedBelow = 0 } = from?.head ?? {}
    // What was emptied is garbage by its number, whoever writes it.
    const numbers = Math.max(nextNumber, emptiedBelow)
    const head = {
      nonce: newNonce(),
      epoch: (from?.head.epoch ?? 0) + 1,
      state: 'held' as const,
      leaseMs: settings.leaseMs,
      owner: ownerName(),
      name: settings.name,
      manifest: from?.head.manifest ?? null,
      parent: from?.head.parent ?? null,
      nextNumber: numbers + numbersPerReserve,
      emptiedBelow,
    }
    const start = momentNow()
    const stop = new AbortController()
    const claiming = register
      .change(from?.version ?? 0, head, { signal: stop.signal })
      .then((claimed) => claimed && new StoreOwner(parts, claimed, { start, nextNumber: numbers }))
    try {
      return await orAbort(claiming, signal)
    } catch (error) {
      const takeBack = async () => {
        const scope = { signal: stop.signal }
        const owner = await claiming.catch(() => undefined)
        if (owner !== undefined) return owner.release(true)
        // Perhaps it was claimed, and only the answer was lost.
        const { newest } = await register.read(scope)
        if (newest?.head.nonce !== head.nonce) return
        const closed = { ...head, nonce: newNonce(), state: 'closed' as const, nextNumber: numbers }
        await register.change(newest.version, closed, scope)
        await register.settle()
      }
      await Promise.race([takeBack().catch(() => {}), delay(hurryMs)])
      stop.abort()
      throw error
    }
  }

  /** What the head says. */
  get head(): Head {
    return this.#current.head
  }

  /** Goes on after a number that was found in the store. */
  continueAfter(number: number): void {
    this.nextNumber = Math.max(this.nextNumber, number + 1)
  }

  /** Names the manifest that counts from now on, and the one to go back to if that is damaged. */
  publish(manifest: string, parent: string | null): Promise<void> {
    return this.#change({ manifest, parent })
  }

  /** Declares all that was ever stored garbage. */
  empty(): Promise<void> {
    return this.#change({ manifest: null, parent: null, emptiedBelow: this.nextNumber })
  }

  protected override get hasNumber(): boolean {
    return this.nextNumber < this.#current.head.nextNumber
  }

  protected override writeLease(): Promise<void> {
    return this.#change({})
  }

  protected override async giveBack(signal: AbortSignal | undefined): Promise<void> {
    // What was not given of the reserve can be given by the next owner.
    await orAbort(this.#change({ state: 'closed', nextNumber: this.nextNumber }, signal), signal)
    await orAbort(this.#register.settle(), signal)
  }

  #change(change: Change, signal?: AbortSignal): Promise<void> {
    const made = this.#lastChange.then(() => this.#changeNow(change, signal))
    this.#lastChange = made.catch(() => {})
    return made
  }

  async #changeNow(change: Change, signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      this.assertNotLost()
      const from = this.#current
      const head = { ...from.head, nextNumber: this.#reserve(), ...change, nonce: newNonce() }
      this.#unknown.set(head.nonce, head)
      const start = momentNow()
      const made = await this.#register.change(from.version, head, { signal })
      if (made !== undefined) {
        this.#current = made
        this.#unknown.clear()
        this.term.begin(start, made.writtenMs)
        return
      }
      // Perhaps by a change of this owner, whose answer was lost.
      const { newest } = await this.#register.read({ signal })
      const own = newest && this.#unknown.get(newest.head.nonce)
      if (own === undefined || newest?.version !== from.version + 1) {
        const who = newest === undefined ? 'the head is gone' : `${newest.head.owner} changed its head`
        throw this.lose(who)
      }
      this.#unknown.clear()
      this.#current = newest
    }
  }

  /** The number up to which this owner gives numbers: enough for a while. */
  #reserve(): number {
    const { nextNumber } = this.#current.head
    const isShort = nextNumber - this.nextNumber < numbersPerReserve / 2
    return isShort ? this.nextNumber + numbersPerReserve : nextNumber
  }
}

function newNonce(): string {
  return randomBytes(12).toString('hex')
}
