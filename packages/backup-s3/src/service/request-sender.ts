import { type HostTimer, SpillwayError, startTimer, stopTimer } from '@spillway/core'
import type { CostLedger, RequestVerb } from '../cost/ledger.ts'
import { type PageRequestOptions, type ResponseSink, responseSink } from '../http/response-sink.ts'
import type { Settings } from '../options.ts'
import { discardBody } from './response-body.ts'
import { serviceError, serviceName } from './service-errors.ts'
import { delay, TokenBucket } from './waiting.ts'

/**
 * One request through the application's client: with its timeouts, counted in the ledger, held to budget and rate, and
 * with errors of the closed union. The client's own retries are switched off for it, since the backup decides on its
 * own what is worth repeating (retry.ts); the client itself is not changed.
 *
 *   budget ─▶ rate ─▶ client.send ─▶ [signed, counted, first byte by a deadline] ─▶ answer
 */

export interface Attempt {
  /** For messages. */
  readonly what: string
  readonly signal?: AbortSignal | undefined
  readonly bytesSent?: number
  readonly bytesExpected?: number
  readonly timeoutMs?: number
  /** Not held back by the budget: what keeps order costs less than disorder. */
  readonly free?: boolean
  readonly sink?: ResponseSink
  /** Of the body, in hex, so that the SDK need not compute it. */
  readonly sha256?: string | undefined
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
    add(middleware: unknown, options: { step: 'build'; name: string }): void
    addRelativeTo(
      middleware: unknown,
      options: { relation: 'before'; toMiddleware: string; name: string },
    ): void
  }
}
type Next = (args: { request: { headers: Record<string, string> } }) => Promise<unknown>

export class RequestSender {
  readonly #settings: Settings
  readonly #ledger: CostLedger
  readonly #pace: TokenBucket | undefined
  #clockCorrected = false

  constructor(settings: Settings, ledger: CostLedger) {
    this.#settings = settings
    this.#ledger = ledger
    const rate = settings.maxRequestsPerSecond
    this.#pace = Number.isFinite(rate) ? new TokenBucket(rate, Math.max(1, rate / 10)) : undefined
  }

  async send<Out>(
    verb: RequestVerb,
    command: object & { readonly middlewareStack: unknown; resolveMiddleware: (...args: never[]) => unknown },
    attempt: Attempt,
  ): Promise<Out & ServiceAnswer> {
    const { client, name, firstByteTimeoutMs, connectTimeoutMs, bodyTimeoutMs } = this.#settings
    const { what, signal, bytesSent = 0, timeoutMs = firstByteTimeoutMs } = attempt
    signal?.throwIfAborted()
    if (!attempt.free) this.#ledger.assertBudget(verb, attempt.bytesExpected ?? bytesSent)
    const wait = this.#pace?.take() ?? 0
    if (wait > 0) await delay(wait, signal)
    const { middlewareStack } = command as unknown as AnyCommand
    const once = (next: Next) => async (args: Parameters<Next>[0]) => {
      this.#ledger.sent(verb, bytesSent, attempt.free ?? false)
      try {
        return await next(args)
      } catch (failure) {
        throw new AttemptFailure(failure)
      }
    }
    middlewareStack.addRelativeTo(once, {
      relation: 'before',
      toMiddleware: 'httpSigningMiddleware',
      name: 'spillwayAttempt',
    })
    if (attempt.sha256 !== undefined) {
      const sha256 = attempt.sha256
      const addHash = (next: Next) => (args: Parameters<Next>[0]) => {
        args.request.headers['x-amz-content-sha256'] = sha256
        return next(args)
      }
      middlewareStack.add(addHash, { step: 'build', name: 'spillwayPayloadHash' })
    }
    const controller = new AbortController()
    const stop = (reason: unknown) => controller.abort(reason)
    const onAbort = () => stop(signal!.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    const timer = startTimer(() => {
      if (attempt.sink?.isComplete) return
      stop(new SpillwayError('ETIMEDOUT', `${what}: no answer within ${timeoutMs} ms`, { backup: name }))
    }, timeoutMs)
    const options: PageRequestOptions & { abortSignal: AbortSignal } = {
      abortSignal: controller.signal,
      connectTimeoutMs,
      bodyTimeoutMs,
      ...(attempt.sink === undefined ? {} : { [responseSink]: timerStopping(attempt.sink, timer) }),
    }
    const aborted = new Promise<never>((_, reject) => {
      controller.signal.addEventListener('abort', () => reject(controller.signal.reason), { once: true })
    })
    aborted.catch(() => {})
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
      if (!signal?.aborted) this.#ledger.failed(verb)
      if (controller.signal.aborted) throw controller.signal.reason
      if (serviceName(failure) === 'RequestTimeTooSkewed' && !this.#clockCorrected) {
        // The client has taken over the service's clock from this answer; the next request fits.
        this.#clockCorrected = true
        throw new SpillwayError('EAGAIN', `${what}: the clocks differ`, { backup: name, cause: failure })
      }
      throw serviceError(failure, what, name)
    } finally {
      stopTimer(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }
}

export interface ServiceAnswer {
  readonly $metadata: { readonly httpStatusCode?: number }
  readonly ETag?: string
  readonly Body?: unknown
  readonly ContentLength?: number
  readonly ContentRange?: string
  readonly LastModified?: Date
  readonly Metadata?: Record<string, string>
  readonly Contents?: readonly { Key?: string; Size?: number; LastModified?: Date }[]
  readonly NextContinuationToken?: string
  readonly Errors?: readonly { Key?: string; Code?: string; Message?: string }[]
}

/** The sink, which ends the wait for the first byte when that comes. */
function timerStopping(sink: ResponseSink, timer: HostTimer): ResponseSink {
  return {
    begin(head) {
      stopTimer(timer)
      return sink.begin(head)
    },
    memory: () => sink.memory(),
    filled: (bytes) => sink.filled(bytes),
    write: (chunk) => sink.write(chunk),
    get isComplete() {
      return sink.isComplete
    },
  }
}
