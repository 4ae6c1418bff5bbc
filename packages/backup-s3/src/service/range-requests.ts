import { GetObjectCommand } from '@aws-sdk/client-s3'
import { nowMs, SpillwayError } from '@spillway/core'
import type { CostLedger, Reservation } from '../cost/ledger.ts'
import type { RawRequest, RawResponse } from '../http/connection.ts'
import type { PageExchange } from '../http/connection-pool.ts'
import { type BodyPaceLimits, type Deadline, notWatched, unwatch, watch } from '../http/deadlines.ts'
import { isPageExchanger, pageExchange } from '../http/page-http-handler.ts'
import type { ResponseHead, ResponseSink } from '../http/response-sink.ts'
import type { Origin } from '../http/route.ts'
import { TextBuffer } from '../http/text-buffer.ts'
import type { Settings } from '../options.ts'
import { DirectGets } from './direct-gets.ts'
import type { Attempt, RequestSender, ServiceAnswer } from './request-sender.ts'
import { discardBody, readBody } from './response-body.ts'
import type { ServiceClock } from './service-clock.ts'
import { serviceError } from './service-errors.ts'
import type { SignedGets } from './signed-get.ts'

export interface RangeRequest {
  readonly key: string
  readonly offset: number
  readonly bytes: number
  readonly sink: ResponseSink
}

/** Takes the end of a request, once: what went wrong, or nothing. */
export type RangeEnd = (error: unknown) => void

/** A ranged GET that is under way. */
export interface RangeAttempt {
  /** Ends it at once; `end` is told the reason. Nothing touches its memory afterwards. */
  abort(reason: Error): void
}

/** What is used of a request handler that is not ours. */
type Handle = (
  request: object,
  options: object,
) => Promise<{ response: { statusCode: number; headers: Record<string, string>; body: unknown } }>

/** What is looked at of an answer. */
interface AnsweredHead {
  readonly status: number
  readonly date: string | undefined
  readonly headers: Record<string, string>
}

const noBody: readonly Uint8Array[] = []

/**
 * Ranged GETs into sinks, each without a second try.
 *
 *   budget ─▶ rate ─┬─ direct: signed here ─▶ request handler ─┬─▶ 2xx: into the sink ─▶ end
 *                   │                                          ├─▶ 404, 412, 416, 5xx: the error
 *                   │                                          └─▶ else the SDK has to see it ─┐
 *                   └─ through the client's send ◀───────────────────────────────────────────-─┘
 */
export class RangeRequests {
  direct = 0
  throughSdk = 0
  readonly gets: DirectGets
  readonly heads = new RequestHeads()
  readonly settings: Settings
  readonly ledger: CostLedger
  readonly sender: RequestSender
  readonly clock: ServiceClock
  readonly bodyLimits: BodyPaceLimits
  readonly #readSettings: Record<string, unknown>

  constructor(parts: {
    settings: Settings
    ledger: CostLedger
    sender: RequestSender
    clock: ServiceClock
    readSettings: Record<string, unknown>
  }) {
    const { settings } = parts
    this.settings = settings
    this.ledger = parts.ledger
    this.sender = parts.sender
    this.clock = parts.clock
    this.#readSettings = parts.readSettings
    this.gets = new DirectGets(settings)
    const { bodyTimeoutMs, minDownloadBytesPerSecond } = settings
    this.bodyLimits = { silenceMs: bodyTimeoutMs, minBytesPerSecond: minDownloadBytesPerSecond }
  }

  /** Starts a GET; `end` may be told at once. */
  start(request: RangeRequest, end: RangeEnd): RangeAttempt {
    const attempt = new RangeAttemptUnderWay(this, request, end)
    attempt.start()
    return attempt
  }

  /** Which way requests go now, why, and how many went each way. */
  report(): { way: 'direct' | 'sdk'; reason: string | undefined; direct: number; throughSdk: number } {
    const { reason } = this.gets
    const { direct, throughSdk } = this
    return { way: reason === undefined ? 'direct' : 'sdk', reason, direct, throughSdk }
  }

  /** One GET through the client's `send`. */
  async sendThroughSdk(request: RangeRequest, signal: AbortSignal): Promise<void> {
    const { key, offset, bytes, sink } = request
    const command = new GetObjectCommand({
      ...this.#readSettings,
      Bucket: this.settings.bucket,
      Key: key,
      Range: `bytes=${offset}-${offset + bytes - 1}`,
    })
    const attempt: Attempt = {
      what: `reading ${key}`,
      signal,
      sink,
      bytesExpected: bytes,
      ...(this.gets.wantsPattern
        ? { onSigned: (signed, context) => this.gets.signed(key, signed, context) }
        : {}),
    }
    this.throughSdk++
    const answer: ServiceAnswer = await this.sender.send('get', command, attempt)
    if (sink.isComplete) return discardBody(answer.Body)
    const { $metadata, ContentRange, ContentLength, Body } = answer
    const head = {
      status: $metadata.httpStatusCode ?? 0,
      contentRange: ContentRange,
      contentLength: ContentLength,
    }
    await this.readInto(sink, head, Body, signal)
    assertWhole(sink, key)
  }

  /** Reads the body of a successful answer into the sink. */
  async readInto(sink: ResponseSink, head: ResponseHead, body: unknown, signal: AbortSignal): Promise<void> {
    let isWanted = false
    try {
      isWanted = sink.begin(head)
    } finally {
      if (!isWanted) discardBody(body)
    }
    if (!isWanted) throw new SpillwayError('EINTR', 'another request for the same bytes was faster')
    await readBody(body, {
      ...this.bodyLimits,
      signal,
      onChunk: (chunk) => sink.write(chunk, 0, chunk.length),
    })
  }
}

/** One GET, from its turn to its end. It is the sink that the handler sees, so it knows of the first byte. */
class RangeAttemptUnderWay implements RangeAttempt, Deadline, ResponseSink {
  dueAt = Number.POSITIVE_INFINITY
  place = notWatched
  readonly #requests: RangeRequests
  readonly #request: RangeRequest
  readonly #end: RangeEnd
  #reservation: Reservation | undefined
  #exchange: PageExchange | undefined
  /** The head that the exchange sends. */
  #head: TextBuffer | undefined
  #controller: AbortController | undefined
  #isWaiting = false
  #isOver = false

  constructor(requests: RangeRequests, request: RangeRequest, end: RangeEnd) {
    this.#requests = requests
    this.#request = request
    this.#end = end
  }

  begin(head: ResponseHead): boolean {
    unwatch(this)
    return this.#request.sink.begin(head)
  }

  memory(): Uint8Array | undefined {
    return this.#request.sink.memory()
  }

  filled(bytes: number): void {
    this.#request.sink.filled(bytes)
  }

  write(bytes: Buffer, from: number, end: number): void {
    this.#request.sink.write(bytes, from, end)
  }

  get isComplete(): boolean {
    return this.#request.sink.isComplete
  }

  abort(reason: Error): void {
    if (this.#isOver) return
    this.#isOver = true
    // First the memory is left alone, then it is given back.
    this.#exchange?.abort(reason)
    this.#controller?.abort(reason)
    this.#settle(reason)
  }

  /** Its turn has come, or the first byte has not. */
  onDue(): void {
    if (this.#isWaiting) {
      this.#isWaiting = false
      this.#send()
      return
    }
    const { settings } = this.#requests
    const text = `reading ${this.#request.key}: no answer within ${settings.firstByteTimeoutMs} ms`
    this.#requests.ledger.failed('get')
    this.abort(new SpillwayError('ETIMEDOUT', text, { backup: settings.name }))
  }

  start(): void {
    const { gets, ledger, sender } = this.#requests
    const now = nowMs()
    if (gets.get(now) === undefined) {
      this.#sendThroughSdk()
      return
    }
    try {
      this.#reservation = ledger.reserve('get', this.#request.bytes)
    } catch (error) {
      this.#finish(error)
      return
    }
    const wait = sender.takeTurn(false)
    if (wait <= 0) {
      this.#send()
      return
    }
    this.#isWaiting = true
    this.dueAt = now + wait
    watch(this)
  }

  #send(): void {
    const { gets, ledger, settings } = this.#requests
    const pattern = gets.get(nowMs())
    if (pattern === undefined) {
      this.#sendThroughSdk()
      return
    }
    this.dueAt = nowMs() + settings.firstByteTimeoutMs
    watch(this)
    this.#requests.direct++
    ledger.sent('get', 0, this.#reservation)
    const handler: unknown = settings.client.config.requestHandler
    if (isPageExchanger(handler)) {
      const head = this.#requests.heads.take()
      this.#head = head
      pattern.writeHead(this.#request, gets.clockMs, head)
      const request: RawRequest = {
        head: head.bytes,
        body: noBody,
        waitsForContinue: false,
        sink: this,
        silenceMs: this.#requests.bodyLimits.silenceMs,
        minBytesPerSecond: this.#requests.bodyLimits.minBytesPerSecond,
      }
      const { connectTimeoutMs } = settings
      const options = { connectTimeoutMs, mayRepeat: this.#mayRepeat }
      const exchange = handler[pageExchange](originOf(pattern), request, options, this.#answered)
      if (exchange !== undefined) {
        // It may have ended already.
        if (!this.#isOver && this.#controller === undefined) this.#exchange = exchange
        return
      }
      this.#giveHeadBack()
    }
    this.#sendThroughHandler(handler as { handle: Handle }, pattern)
  }

  readonly #mayRepeat = (): boolean => {
    const { ledger } = this.#requests
    try {
      const reservation = ledger.reserve('get', 0)
      ledger.sent('get', 0, reservation)
      ledger.release(reservation)
      return true
    } catch {
      return false
    }
  }

  readonly #answered = (response: RawResponse | undefined, error: unknown): void => {
    this.#exchange = undefined
    this.#giveHeadBack()
    if (this.#isOver) return
    if (response !== undefined) {
      this.#take(response.head, response.body)
      return
    }
    const { ledger, settings } = this.#requests
    ledger.failed('get')
    this.#finish(serviceError(error, `reading ${this.#request.key}`, settings.name))
  }

  /** Looks at an answer that is whole; a body that was wanted is in the sink. */
  #take(head: AnsweredHead, body: Buffer): void {
    const { clock, gets, ledger, settings } = this.#requests
    const { key, sink } = this.#request
    const { status, date } = head
    // The same second is told by hundreds.
    if (gets.saw(date)) clock.observe(date)
    if (status >= 200 && status < 300) {
      if (sink.isComplete) {
        this.#finish(undefined)
        return
      }
      this.#finish(shortAnswer(key))
      return
    }
    ledger.failed('get')
    if (status === 404 || status === 412 || status === 416 || status >= 500) {
      this.#finish(serviceError(failureOf(status, head.headers, body), `reading ${key}`, settings.name))
      return
    }
    // A redirect, a refused signature, a clock: what to do about those the SDK knows.
    gets.forget()
    this.#sendThroughSdk()
  }

  /** A request handler that is not ours gets the request, too. */
  #sendThroughHandler(handler: { handle: Handle }, pattern: SignedGets): void {
    const { path, headers } = pattern.sign(this.#request, this.#requests.gets.clockMs)
    const { protocol, hostname, port } = pattern
    const target = { method: 'GET', protocol, hostname, path, query: {}, headers }
    const controller = new AbortController()
    this.#controller = controller
    const { signal } = controller
    const work = async () => {
      const options = { abortSignal: signal }
      const { response } = await handler.handle(port === undefined ? target : { ...target, port }, options)
      const { statusCode, headers: answered, body } = response
      const answeredHead = { status: statusCode, date: answered['date'], headers: answered }
      if (signal.aborted) return discardBody(body)
      if (statusCode < 200 || statusCode >= 300) {
        unwatch(this)
        const parts: Uint8Array[] = []
        const { bodyLimits } = this.#requests
        await readBody(body, { ...bodyLimits, signal, onChunk: (chunk) => parts.push(chunk) })
        return this.#take(answeredHead, Buffer.concat(parts))
      }
      const length = answered['content-length']
      const contentLength = length === undefined ? undefined : Number(length)
      const head = { status: statusCode, contentRange: answered['content-range'], contentLength }
      await this.#requests.readInto(this, head, body, signal)
      this.#take(answeredHead, Buffer.alloc(0))
    }
    work().catch((error: unknown) => this.#answered(undefined, error))
  }

  #sendThroughSdk(): void {
    const { ledger } = this.#requests
    unwatch(this)
    // It is asked for anew there.
    if (this.#reservation !== undefined) ledger.release(this.#reservation)
    this.#reservation = undefined
    const controller = new AbortController()
    this.#controller = controller
    this.#requests.sendThroughSdk(this.#request, controller.signal).then(
      () => this.#finish(undefined),
      (error: unknown) => this.#finish(error),
    )
  }

  #giveHeadBack(): void {
    if (this.#head !== undefined) this.#requests.heads.giveBack(this.#head)
    this.#head = undefined
  }

  #finish(error: unknown): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#settle(error)
  }

  #settle(error: unknown): void {
    unwatch(this)
    if (this.#reservation !== undefined) this.#requests.ledger.release(this.#reservation)
    this.#end(error)
  }
}

/** Memory for the heads of requests, used again: as much as was ever under way at once. */
class RequestHeads {
  readonly #free: TextBuffer[] = []

  take(): TextBuffer {
    return this.#free.pop() ?? new TextBuffer('latin1')
  }

  giveBack(head: TextBuffer): void {
    this.#free.push(head)
  }
}

/** A pattern's origin is the same for all that is signed with it. */
const origins = new WeakMap<SignedGets, Origin>()
function originOf(pattern: SignedGets): Origin {
  let origin = origins.get(pattern)
  if (origin === undefined) {
    const secure = pattern.protocol === 'https:'
    const port = pattern.port ?? (secure ? 443 : 80)
    origin = { secure, host: pattern.hostname.replace(/^\[|\]$/g, ''), port }
    origins.set(pattern, origin)
  }
  return origin
}

function assertWhole(sink: ResponseSink, key: string): void {
  if (!sink.isComplete) throw shortAnswer(key)
}

function shortAnswer(key: string): SpillwayError {
  return new SpillwayError('EIO', `reading ${key}: the answer was short`, { retryable: true })
}

/** A refusal as the SDK would tell it. */
function failureOf(status: number, headers: Record<string, string>, body: Buffer): Error {
  const text = body.toString()
  const element = (name: string) => new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1]
  const name =
    element('Code') ?? (status === 404 ? 'NoSuchKey' : status === 412 ? 'PreconditionFailed' : 'UnknownError')
  const failure = new Error(element('Message') ?? 'UnknownError')
  return Object.assign(failure, {
    name,
    $metadata: { httpStatusCode: status },
    $response: { statusCode: status, headers },
  })
}
