import { nowMs, SpillwayError } from '@spillway/core'
import type { CostLedger, RequestVerb, Reservation } from '../cost/ledger.ts'
import { type Deadline, notWatched, unwatch, watch } from '../http/deadlines.ts'
import { type PageRequestOptions, type ResponseSink, responseSink } from '../http/response-sink.ts'
import type { Settings } from '../options.ts'
import { discardBody } from './response-body.ts'
import type { ServiceClock } from './service-clock.ts'
import { serviceError, serviceName, statusOf } from './service-errors.ts'
import { delay, TokenBucket } from './waiting.ts'

/**
 * One request through the application's client: with its timeouts, counted in the ledger, held to budget and rate, and
 * with errors of the closed union. The client's own retries are switched off for it, since the backup decides on its
 * own what is worth repeating (retry.ts); the client itself is not changed.
 *
 *   budget ─▶ rate ─▶ client.send ─▶ [counted, signed, first byte by a deadline] ─▶ answer
 */

export interface Attempt {
  /** For messages. */
  readonly what: string
  readonly signal?: AbortSignal | undefined
  readonly bytesSent?: number
  readonly bytesExpected?: number
  readonly timeoutMs?: number
  /** Held back neither by the budget nor by the rate: what keeps order costs less than disorder. */
  readonly free?: boolean
  /** Told what the answer's `Date` says, in milliseconds. */
  readonly onDate?: ((serviceMs: number) => void) | undefined
  readonly sink?: ResponseSink
  /** Of the body, in hex, so that the SDK need not compute it. */
  readonly sha256?: string | undefined
  /** Sees the request as it was signed. */
  readonly onSigned?: (request: SignedRequest, context: Readonly<Record<string, unknown>>) => void
}

/** A request of the SDK. */
export interface SignedRequest {
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  readonly path: string
  readonly query?: Record<string, string | string[] | null>
  readonly headers: Record<string, string>
}

/** Marks a failure of one attempt so that the SDK's retry middleware does not recognise it and gives it to us. */
class AttemptFailure extends Error {
  readonly failure: unknown
  constructor(failure: unknown) {
    super('attempt failed')
    this.failure = failure
  }
}

// The middleware of a command is typed by its input and output; what is added here is the same for all of them.
interface AnyCommand {
  readonly middlewareStack: {
    add(middleware: unknown, options: { step: 'build' | 'deserialize'; name: string }): void
    addRelativeTo(
      middleware: unknown,
      options: { relation: 'before'; toMiddleware: string; name: string },
    ): void
  }
}
type Next = (args: { request: SignedRequest }) => Promise<unknown>

/** What has come of a request, or the failure that it ended with. */
interface Answered {
  readonly response?: { readonly headers?: Record<string, string> }
  readonly $response?: { readonly headers?: Record<string, string> }
}

/** A correction of the clock by less changes nothing: services allow for a quarter of an hour. */
const leastCorrectionMs = 60_000

export class RequestSender {
  readonly #settings: Settings
  readonly #ledger: CostLedger
  readonly #clock: ServiceClock
  readonly #pace: TokenBucket | undefined
  /** What requests that do not wait may take from the pace of the others: half of it. */
  readonly #freePace: TokenBucket | undefined
  /** Whether any request was answered well: then the client is set up as it should be. */
  #wasAnswered = false
  /** Whether the service refused `Expect: 100-continue`. */
  #isWithoutExpect = false

  constructor(settings: Settings, ledger: CostLedger, clock: ServiceClock) {
    this.#clock = clock
    this.#settings = settings
    this.#ledger = ledger
    const rate = settings.maxRequestsPerSecond
    if (!Number.isFinite(rate)) return
    this.#pace = new TokenBucket(rate, Math.max(1, rate / 10))
    this.#freePace = new TokenBucket(rate / 2, Math.max(1, rate))
  }

  /** Milliseconds that a request has to wait for its turn; its turn is taken. */
  takeTurn(isFree: boolean): number {
    // The lease would run out in the line behind a thousand pages; they wait for it instead. But not for ever, where
    // leases, lists and deletions alone need more than the rate.
    if (isFree && this.#freePace?.tryTake() === false) return 0
    const wait = this.#pace?.take() ?? 0
    return isFree ? 0 : wait
  }

  async send<Out>(
    verb: RequestVerb,
    command: object & { readonly middlewareStack: unknown; resolveMiddleware: (...args: never[]) => unknown },
    attempt: Attempt,
  ): Promise<Out & ServiceAnswer> {
    const { signal, bytesSent = 0, free = false } = attempt
    signal?.throwIfAborted()
    const reservation = free ? undefined : this.#ledger.reserve(verb, attempt.bytesExpected ?? bytesSent)
    try {
      const wait = this.takeTurn(free)
      if (wait > 0) await delay(wait, signal)
      const counted = new CountedAttempt(this.#ledger, verb, bytesSent, reservation)
      const answer = await this.#sendCounted<Out>(command, attempt, counted)
      this.#wasAnswered = true
      return answer
    } finally {
      if (reservation !== undefined) this.#ledger.release(reservation)
    }
  }

  async #sendCounted<Out>(
    command: object,
    attempt: Attempt,
    counted: CountedAttempt,
  ): Promise<Out & ServiceAnswer> {
    const { client, name, firstByteTimeoutMs, connectTimeoutMs, bodyTimeoutMs } = this.#settings
    const { what, signal, sink, timeoutMs = firstByteTimeoutMs } = attempt
    this.#addMiddleware(command as AnyCommand, attempt, counted)
    const controller = new AbortController()
    const onAbort = () => controller.abort(signal!.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    const firstByte: Deadline = {
      dueAt: nowMs() + timeoutMs,
      place: notWatched,
      onDue: () => {
        if (sink?.isComplete) return
        const text = `${what}: no answer within ${Math.ceil(timeoutMs)} ms`
        controller.abort(new SpillwayError('ETIMEDOUT', text, { backup: name }))
      },
    }
    watch(firstByte)
    const options: PageRequestOptions & { abortSignal: AbortSignal } = {
      abortSignal: controller.signal,
      connectTimeoutMs,
      bodyTimeoutMs,
      minBytesPerSecond: this.#settings.minDownloadBytesPerSecond,
      mayRepeat: () => counted.mayRepeat(),
      ...(sink === undefined ? {} : { [responseSink]: unwatching(sink, firstByte) }),
    }
    const aborted = new Promise<never>((_, reject) => {
      controller.signal.addEventListener('abort', () => reject(controller.signal.reason), { once: true })
    })
    aborted.catch(() => {})
    const clockOffset = this.#clockOffset
    try {
      // Raced, because a client that waits for its credentials or a socket does not look at the signal.
      const sending = client.send(command as never, options as never) as unknown as Promise<
        Out & ServiceAnswer
      >
      // An answer that comes in spite of the abort has nobody who would read it.
      const discard = ({ Body }: ServiceAnswer) => controller.signal.aborted && discardBody(Body)
      sending.then(discard, () => {})
      return await Promise.race([sending, aborted])
    } catch (error) {
      const failure = error instanceof AttemptFailure ? error.failure : error
      if (!signal?.aborted) counted.failed()
      if (controller.signal.aborted) throw controller.signal.reason
      throw this.#errorOf(failure, what, { clockOffset, wasSent: counted.requests > 0 })
    } finally {
      unwatch(firstByte)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  #addMiddleware({ middlewareStack }: AnyCommand, attempt: Attempt, counted: CountedAttempt): void {
    const { sha256, onSigned } = attempt
    const once = (next: Next) => async (args: Parameters<Next>[0]) => {
      counted.sent()
      if (this.#isWithoutExpect) delete args.request.headers['Expect']
      try {
        const answered = (await next(args)) as Answered | undefined
        this.#readDate(answered?.response?.headers, attempt)
        return answered
      } catch (failure) {
        this.#readDate((failure as Answered | undefined)?.$response?.headers, attempt)
        // The SDK follows it to another region, if it was told to, and sends once more.
        if (await this.#isRedirect(failure)) throw failure
        throw new AttemptFailure(failure)
      }
    }
    middlewareStack.addRelativeTo(once, {
      relation: 'before',
      toMiddleware: 'httpSigningMiddleware',
      name: 'spillwayAttempt',
    })
    if (sha256 !== undefined) {
      const addHash = (next: Next) => (args: Parameters<Next>[0]) => {
        args.request.headers['x-amz-content-sha256'] = sha256
        return next(args)
      }
      middlewareStack.add(addHash, { step: 'build', name: 'spillwayPayloadHash' })
    }
    if (onSigned !== undefined) {
      const look = (next: Next, context: Record<string, unknown>) => (args: Parameters<Next>[0]) => {
        onSigned(args.request, context)
        return next(args)
      }
      middlewareStack.add(look, { step: 'deserialize', name: 'spillwaySignedRequest' })
    }
  }

  #readDate(headers: Record<string, string> | undefined, { onDate }: Attempt): void {
    const date = this.#clock.observe(headers?.['date'])
    if (date !== undefined) onDate?.(date)
  }

  async #isRedirect(failure: unknown): Promise<boolean> {
    const { $response } = (failure ?? {}) as { $response?: { headers?: Record<string, string> } }
    const status = statusOf(failure ?? {})
    if ((status !== 301 && status !== 400) || !$response?.headers?.['x-amz-bucket-region']) return false
    const config = this.#settings.client.config as { followRegionRedirects?: unknown } | undefined
    const follows = config?.followRegionRedirects
    return (typeof follows === 'function' ? await follows() : follows) === true
  }

  #errorOf(failure: unknown, what: string, sent: { clockOffset: number; wasSent: boolean }): Error {
    const { name } = this.#settings
    if (statusOf(failure ?? {}) === 417) this.#isWithoutExpect = true
    // The client takes over the service's clock from such an answer: what is signed after that fits.
    const correctedMs = Math.abs(this.#clockOffset - sent.clockOffset)
    if (serviceName(failure) === 'RequestTimeTooSkewed' && correctedMs >= leastCorrectionMs) {
      return new SpillwayError('EAGAIN', `${what}: the clocks differ`, { backup: name, cause: failure })
    }
    const error = serviceError(failure, what, name)
    if (sent.wasSent || !this.#wasAnswered) return error
    // The same client has prepared requests before: what fails now are its credentials, or where they come from.
    const { message } = failure as Error
    const text = `${what}: the request could not be prepared; are there credentials? (${message})`
    return new SpillwayError('EACCES', text, { backup: name, cause: failure, retryable: true })
  }

  /** By how much the client corrects its clock. */
  get #clockOffset(): number {
    const config = this.#settings.client.config as { systemClockOffset?: number } | undefined
    return config?.systemClockOffset ?? 0
  }
}

/** One attempt in the ledger: it may go out more than once, to another region or on another connection. */
class CountedAttempt {
  requests = 0
  readonly #ledger: CostLedger
  readonly #verb: RequestVerb
  readonly #bytesSent: number
  readonly #reservation: Reservation | undefined

  constructor(
    ledger: CostLedger,
    verb: RequestVerb,
    bytesSent: number,
    reservation: Reservation | undefined,
  ) {
    this.#ledger = ledger
    this.#verb = verb
    this.#bytesSent = bytesSent
    this.#reservation = reservation
  }

  /** It goes out. Throws `EDQUOT` when it does so again, and the budget has no room for that. */
  sent(): void {
    const isFirst = this.requests === 0
    const isHeldBack = this.#reservation !== undefined
    const more = isFirst || !isHeldBack ? undefined : this.#ledger.reserve(this.#verb, this.#bytesSent)
    this.requests++
    this.#ledger.sent(this.#verb, this.#bytesSent, isFirst ? this.#reservation : more)
    if (more !== undefined) this.#ledger.release(more)
  }

  mayRepeat(): boolean {
    try {
      this.sent()
      return true
    } catch {
      return false
    }
  }

  failed(): void {
    this.#ledger.failed(this.#verb)
  }
}

export interface ServiceAnswer {
  readonly $metadata: { readonly httpStatusCode?: number }
  readonly ETag?: string
  readonly VersionId?: string
  readonly Body?: unknown
  readonly ContentLength?: number
  readonly ContentRange?: string
  readonly LastModified?: Date
  readonly Metadata?: Record<string, string>
  readonly Contents?: readonly { Key?: string; Size?: number; LastModified?: Date }[]
  readonly IsTruncated?: boolean
  readonly NextContinuationToken?: string
  readonly Errors?: readonly { Key?: string; Code?: string; Message?: string }[]
}

/** The sink, which ends the wait for the first byte when that comes. */
function unwatching(sink: ResponseSink, firstByte: Deadline): ResponseSink {
  return {
    begin(head) {
      unwatch(firstByte)
      return sink.begin(head)
    },
    memory: () => sink.memory(),
    filled: (bytes) => sink.filled(bytes),
    write: (bytes, from, end) => sink.write(bytes, from, end),
    get isComplete() {
      return sink.isComplete
    },
  }
}
