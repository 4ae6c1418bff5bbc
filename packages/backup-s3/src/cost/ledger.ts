import { SpillwayError } from '@spillway/core'
import type { RequestBudget, RequestPrices } from '../options.ts'

/** Requests as S3 bills them. */
export const requestVerbs = ['put', 'get', 'head', 'list', 'delete'] as const
export type RequestVerb = (typeof requestVerbs)[number]

export interface VerbCosts {
  /** Requests that went out, retries and hedges included. */
  readonly requests: number
  /** Those of them that moved no pages: lease, manifests, listing, deleting, looking after what was lost. */
  readonly housekeeping: number
  readonly failures: number
  readonly bytesSent: number
  readonly bytesReceived: number
}

export interface CostReport {
  readonly verbs: Readonly<Record<RequestVerb, VerbCosts>>
  readonly requests: number
  readonly dollars: number
  /** Per GiB of pages backed up: PUT requests that moved pages, and dollars spent on PUT. */
  readonly putsPerGiB: number
  readonly dollarsPerGiBBackedUp: number
  /** Per GiB of pages restored: GET requests that moved pages, and dollars spent on GET. */
  readonly getsPerGiB: number
  readonly dollarsPerGiBRestored: number
  readonly budget: Readonly<RequestBudget>
}

/** What is set aside for one request: to send it until it goes out, for its answer until that is there. */
export interface Reservation {
  isSent: boolean
  readonly dollarsToSend: number
  readonly dollarsToReceive: number
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** Counts every request that leaves, by verb, with what it costs, and refuses page traffic beyond the budget. */
export class CostLedger {
  readonly #verbs: Record<RequestVerb, Mutable<VerbCosts>>
  readonly #prices: Required<RequestPrices>
  readonly #per1000: Readonly<Record<RequestVerb, number>>
  readonly #backup: string
  #budget: RequestBudget
  /** Of requests that are on their way to being sent. */
  #reservedRequests = 0
  #reservedDollars = 0

  constructor(prices: Required<RequestPrices>, budget: RequestBudget, backup: string) {
    const none = () => ({ requests: 0, housekeeping: 0, failures: 0, bytesSent: 0, bytesReceived: 0 })
    this.#verbs = { put: none(), get: none(), head: none(), list: none(), delete: none() }
    this.#prices = prices
    this.#per1000 = {
      put: prices.per1000Puts,
      get: prices.per1000Gets,
      head: prices.per1000Gets,
      list: prices.per1000Lists,
      delete: prices.per1000Deletes,
    }
    this.#budget = budget
    this.#backup = backup
  }

  setBudget(budget: RequestBudget): void {
    this.#budget = budget
  }

  get requests(): number {
    let sum = 0
    for (const verb of requestVerbs) sum += this.#verbs[verb].requests
    return sum
  }

  get dollars(): number {
    let sum = 0
    for (const verb of requestVerbs) sum += this.#dollars(verb)
    return sum
  }

  /**
   * Sets aside what a request will cost. Throws `EDQUOT` when that would exceed the budget. Deletions, the lease and
   * the search for an upload whose answer was lost are never asked: stopping them would leave orphans and cost more.
   */
  reserve(verb: RequestVerb, bytes: number): Reservation {
    const { maxRequests, maxDollars } = this.#budget
    if (maxRequests !== undefined && this.requests + this.#reservedRequests + 1 > maxRequests)
      throw this.#refusal(`${maxRequests} requests`)
    const isUpload = verb === 'put'
    const dollarsToSend = this.#price(verb, 1, isUpload ? bytes : 0, 0)
    const dollarsToReceive = isUpload ? 0 : this.#price(verb, 0, 0, bytes)
    const dollars = this.#reservedDollars + dollarsToSend + dollarsToReceive
    if (
      maxDollars !== undefined &&
      maxDollars !== Number.POSITIVE_INFINITY &&
      this.dollars + dollars > maxDollars
    )
      throw this.#refusal(`${maxDollars} dollars`)
    this.#reservedRequests++
    this.#reservedDollars = dollars
    return { isSent: false, dollarsToSend, dollarsToReceive }
  }

  /** Ends a reservation: what the request did cost counts by itself. */
  release(reservation: Reservation): void {
    this.#endSending(reservation)
    this.#reservedDollars -= reservation.dollarsToReceive
    // Sums of fractions leave a rest.
    if (this.#reservedRequests === 0 && Math.abs(this.#reservedDollars) < 1e-12) this.#reservedDollars = 0
  }

  #endSending(reservation: Reservation): void {
    if (reservation.isSent) return
    reservation.isSent = true
    this.#reservedRequests--
    this.#reservedDollars -= reservation.dollarsToSend
  }

  #refusal(what: string): SpillwayError {
    const text = `the budget of ${what} is used up; setBudget() raises it`
    return new SpillwayError('EDQUOT', text, { backup: this.#backup, retryable: false })
  }

  /** How many PUTs of `bytes` the budget still allows. */
  putsLeft(bytes: number): number {
    const { maxRequests = Number.POSITIVE_INFINITY, maxDollars = Number.POSITIVE_INFINITY } = this.#budget
    const price = this.#price('put', 1, bytes, 0)
    const byDollars =
      price === 0 ? Number.POSITIVE_INFINITY : (maxDollars - this.dollars - this.#reservedDollars) / price
    return Math.max(0, Math.floor(Math.min(maxRequests - this.requests - this.#reservedRequests, byDollars)))
  }

  /** A request goes out now; one that the budget was asked for comes with its reservation. */
  sent(verb: RequestVerb, bytes: number, reservation?: Reservation): void {
    if (reservation !== undefined) this.#endSending(reservation)
    this.#verbs[verb].requests++
    if (reservation === undefined) this.#verbs[verb].housekeeping++
    this.#verbs[verb].bytesSent += bytes
  }

  received(verb: RequestVerb, bytes: number): void {
    this.#verbs[verb].bytesReceived += bytes
  }

  failed(verb: RequestVerb): void {
    this.#verbs[verb].failures++
  }

  report(backedUpBytes: number, restoredBytes: number): CostReport {
    const per = (amount: number, bytes: number) => (bytes === 0 ? 0 : amount / (bytes / 2 ** 30))
    const verbs = {} as Record<RequestVerb, VerbCosts>
    for (const verb of requestVerbs) verbs[verb] = { ...this.#verbs[verb] }
    return {
      verbs,
      requests: this.requests,
      dollars: this.dollars,
      putsPerGiB: per(verbs.put.requests - verbs.put.housekeeping, backedUpBytes),
      dollarsPerGiBBackedUp: per(this.#dollars('put'), backedUpBytes),
      getsPerGiB: per(verbs.get.requests - verbs.get.housekeeping, restoredBytes),
      dollarsPerGiBRestored: per(this.#dollars('get'), restoredBytes),
      budget: { ...this.#budget },
    }
  }

  #dollars(verb: RequestVerb): number {
    const { requests, bytesSent, bytesReceived } = this.#verbs[verb]
    return this.#price(verb, requests, bytesSent, bytesReceived)
  }

  #price(verb: RequestVerb, requests: number, sent: number, received: number): number {
    const prices = this.#prices
    const per1000 = this.#per1000[verb]
    return (
      (requests * per1000) / 1000 + (sent * prices.perGiBSent + received * prices.perGiBReceived) / 2 ** 30
    )
  }
}
