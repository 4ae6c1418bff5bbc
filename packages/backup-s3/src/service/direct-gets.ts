import { nowMs } from '@spillway/core'
import type { Settings } from '../options.ts'
import { ClientConditions } from './client-conditions.ts'
import type { SignedRequest } from './request-sender.ts'
import { SignedGets, type SigningIdentity } from './signed-get.ts'

/**
 * Whether GETs of pages go past the SDK's middleware, and how they look then.
 *
 *   no pattern ─(a GET through the SDK is signed)─▶ pattern ─(a minute)─▶ one GET renews it ─▶ pattern
 *       ▲                                              │ an answer that the SDK has to see, credentials end
 *       └──────────────────────────────────────────────┘
 */

/** So old a pattern is renewed by the next request … */
const renewAfterMs = 60_000
/** … and so old it is not used any more. */
const mostAgeMs = 120_000
/** Credentials are not used in their last moments. */
const beforeExpiryMs = 2_000
/** A clock that differs by less is right enough: services allow a quarter of an hour. */
const toleratedSkewMs = 240_000

export class DirectGets {
  readonly #settings: Settings
  readonly #conditions: ClientConditions
  #pattern: SignedGets | undefined
  /** Times of `performance.now()`. */
  #renewAt = 0
  #validUntil = 0
  /** A request is under way that will renew the pattern. */
  #renewingUntil = 0
  /** The client's correction of the clock when the pattern was made, and the one that answers told since. */
  #clientOffsetMs = 0
  #clockOffsetMs = 0
  #lastDate: string | undefined
  /** Why a pattern could not be made. */
  #refusal: string | undefined

  constructor(settings: Settings) {
    this.#settings = settings
    this.#conditions = new ClientConditions(settings.client)
    // What only a promise tells is known when pages are wanted.
    this.#conditions.reasonAgainst()
  }

  /** Why GETs go through the SDK; undefined when they do not. */
  get reason(): string | undefined {
    const { pageRequests } = this.#settings
    if (pageRequests === 'sdk') return "pageRequests is 'sdk'"
    const own = this.#conditions.reasonAgainst()
    const against = pageRequests === 'direct' ? undefined : own
    if (against !== undefined) return against
    return this.#pattern === undefined
      ? (this.#refusal ?? 'no request has been signed by the SDK yet')
      : undefined
  }

  /** The pattern for a request that goes out now; undefined: through the SDK. */
  get(now: number): SignedGets | undefined {
    const { pageRequests } = this.#settings
    if (pageRequests === 'sdk' || this.#pattern === undefined || now >= this.#validUntil) return undefined
    if (pageRequests === 'auto' && this.#conditions.reasonAgainst() !== undefined) return undefined
    // One at a time, and another if nothing comes of that.
    if (now >= this.#renewAt && now >= this.#renewingUntil) {
      this.#renewingUntil = now + 10_000
      return undefined
    }
    return this.#pattern
  }

  /** The service's clock. */
  get clockMs(): number {
    const { systemClockOffset = 0 } = this.#settings.client.config as { systemClockOffset?: number }
    if (systemClockOffset !== this.#clientOffsetMs) {
      this.#clientOffsetMs = systemClockOffset
      this.#clockOffsetMs = systemClockOffset
    }
    // Not core's clock: the SDK's offset is to the `Date` that the application sees, which may be faked in its tests.
    return Date.now() + this.#clockOffsetMs
  }

  /** Whether a request that goes through the SDK may become the pattern of others. */
  get wantsPattern(): boolean {
    const { pageRequests } = this.#settings
    if (pageRequests === 'sdk') return false
    return pageRequests === 'direct' || this.#conditions.reasonAgainst() === undefined
  }

  /** Takes a request that the SDK has signed. */
  signed(key: string, request: SignedRequest, context: Readonly<Record<string, unknown>>): void {
    const identity = identitiesOf(context)
      .map((candidate) => ({ candidate, pattern: SignedGets.from(request, key, candidate) }))
      .find(({ pattern }) => pattern !== undefined)
    this.#renewingUntil = 0
    if (identity === undefined) {
      this.#pattern = undefined
      this.#refusal = 'the signature of the SDK does not come out here'
      return
    }
    const now = nowMs()
    this.#refusal = undefined
    this.#pattern = identity.pattern
    const { expiration } = identity.candidate
    const lifeMs = expiration === undefined ? Number.POSITIVE_INFINITY : expiration.getTime() - this.clockMs
    this.#renewAt = now + renewAfterMs
    this.#validUntil = now + Math.min(mostAgeMs, lifeMs - beforeExpiryMs)
  }

  /** An answer came that the SDK has to see: the next request is one of its own. */
  forget(): void {
    this.#pattern = undefined
  }

  /** Takes in the `Date` of an answer; whether it says something new. */
  saw(date: string | undefined): boolean {
    if (date === undefined || date === this.#lastDate) return false
    this.#lastDate = date
    const offset = Date.parse(date) - Date.now()
    const isUsed = Number.isFinite(offset) && this.#conditions.correctsClock
    if (isUsed && Math.abs(offset - this.#clockOffsetMs) >= toleratedSkewMs) this.#clockOffsetMs = offset
    return true
  }
}

/** Whoever may have signed: the session of a directory bucket, or the client's credentials. */
function identitiesOf(context: Readonly<Record<string, unknown>>): SigningIdentity[] {
  const inside = context['__smithy_context'] as
    | { readonly selectedHttpAuthScheme?: { readonly identity?: SigningIdentity } }
    | undefined
  const candidates = [context['s3ExpressIdentity'], inside?.selectedHttpAuthScheme?.identity]
  return candidates.filter((candidate) => candidate !== undefined) as SigningIdentity[]
}
