import type { Socket } from 'node:net'
import { nowMs, SpillwayError } from '@spillway/core'
import { type Deadline, nextBytesDueAt, notWatched, unwatch, watch } from './deadlines.ts'
import { mayMoveMore } from './pace.ts'
import { RequestWriter } from './request-writer.ts'
import type { ResponseHead } from './response-head.ts'
import { type ResponseEvents, ResponseParser } from './response-parser.ts'
import type { ResponseSink } from './response-sink.ts'
import type { OpenedSocket, Origin, Route } from './route.ts'

/**
 * What is read when the bytes have no place of their own yet. One for all connections: it is filled and looked
 * through in one go, and nothing in it is needed afterwards.
 */
const staging = Buffer.allocUnsafeSlow(256 * 1024)
/** What is read before the head is known: little, so that most of the body goes straight to its place. */
const headStaging = staging.subarray(0, 8 * 1024)
/** Bodies of refusals are short. */
const maxRefusalBytes = 1024 * 1024
const nothing = Buffer.alloc(0)

export interface RawRequest {
  /** Request line and headers, with the empty line; bytes stay as they are until the end of the exchange. */
  readonly head: string | Uint8Array
  /** The body, in pieces that nobody changes before the response or the error is there. */
  readonly body: readonly Uint8Array[]
  /** Whether the body is held back until the service wants it. */
  readonly waitsForContinue: boolean
  /** Where the body of a successful response goes; without it, and of a refusal, it is in the response. */
  readonly sink: ResponseSink | undefined
  /** Longest silence within the response's body. */
  readonly silenceMs: number
  /** Least rate of the response's body. */
  readonly minBytesPerSecond: number
}

export interface RawResponse {
  /** To be read before the event loop turns: the connection's next response goes into the same head. */
  readonly head: ResponseHead
  /** The body, unless it went into the sink. */
  readonly body: Buffer
}

/** Takes the end of an exchange: a response, or what went wrong. */
export type ExchangeEnd = (response: RawResponse | undefined, error: unknown) => void

/**
 * A connection that reads bodies straight into the memory of the sink: before each read the socket asks where to put
 * the bytes, and gets the pages themselves where they are large enough, else a buffer that is copied from.
 *
 *   connecting ─▶ idle ─▶ request ─▶ idle ─▶ …
 *                   └──── closed ◀────┘ (on error, abort, `connection: close`)
 */
export class Connection implements ResponseEvents, Deadline {
  /** Time until which the next bytes of the body have to be there. */
  dueAt = Number.POSITIVE_INFINITY
  place = notWatched
  /** Whether it has carried a response before. */
  wasUsed = false
  /** Whether any byte of the current response has come. */
  hasAnswered = false
  isClosed = false
  /** When it was opened and when it last became idle; of `performance.now()`. */
  readonly openedAt = nowMs()
  idleSince = 0
  onClosed: () => void = () => {}
  readonly #parser = new ResponseParser(this)
  readonly #secure: boolean
  #socket: Socket | undefined
  #request: RawRequest | undefined
  #end: ExchangeEnd | undefined
  #writer: RequestWriter | undefined
  #head: ResponseHead | undefined
  #streamsIntoSink = false
  /** Whether the response has ended; told when the bytes that came with its end were looked through. */
  #isWhole = false
  /** Memory of the sink that the socket reads into; undefined: `#reading`. */
  #lent: Uint8Array | undefined
  #reading = headStaging
  #body: Uint8Array[] | undefined
  #bodyBytes = 0

  private constructor(secure: boolean) {
    this.#secure = secure
  }

  /** Connects. Rejects as `Route.open` does. */
  static async open(
    route: Route,
    origin: Origin,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Connection> {
    const connection = new Connection(origin.secure)
    const onread = {
      buffer: () => connection.#nextBuffer(),
      callback: (bytes: number) => connection.#received(bytes),
    }
    connection.#attach(await route.open(origin, onread, timeoutMs, signal))
    return connection
  }

  /** Sends a request and reads the response; `end` is told once, perhaps at once. */
  start(request: RawRequest, end: ExchangeEnd): void {
    this.hasAnswered = false
    // It will not say so once more.
    if (this.isClosed) {
      end(undefined, connectionLost('the connection closed before the request was sent'))
      return
    }
    this.#parser.reset()
    this.#request = request
    this.#end = end
    this.#head = undefined
    this.#streamsIntoSink = false
    this.#isWhole = false
    this.#lent = undefined
    const { head, body, waitsForContinue } = request
    if (body.length === 0) {
      if (typeof head === 'string') this.#socket!.write(head, 'latin1')
      else this.#socket!.write(head)
      return
    }
    this.#writer = new RequestWriter(this.#socket!, body, this.#secure)
    this.#writer.start(head, waitsForContinue)
  }

  /** Ends the exchange that is under way, and the connection with it. */
  abort(reason: unknown): void {
    if (this.#request !== undefined) this.#finish(undefined, reason)
  }

  /** An idle connection does not keep the process alive. */
  setIdle(idle: boolean): void {
    if (idle) {
      this.idleSince = nowMs()
      this.#socket!.unref()
    } else this.#socket!.ref()
  }

  /** Reads on, after it has paused for the others. */
  resume(): void {
    if (!this.isClosed) this.#socket!.resume()
  }

  /** Ends at once: nothing is written into anybody's memory afterwards. */
  destroy(): void {
    this.#socket?.destroy()
    this.#close(undefined)
  }

  /** The body has been silent, or too slow, for too long. */
  onDue(): void {
    const { silenceMs, minBytesPerSecond } = this.#request!
    const text = `the body of the answer fell silent for ${silenceMs} ms, or came at less than ${minBytesPerSecond} bytes a second`
    this.#finish(undefined, new SpillwayError('ETIMEDOUT', text))
  }

  onContinue(): void {
    this.#writer?.proceed()
  }

  onHead(head: ResponseHead): void {
    this.#head = head
    const { sink, silenceMs } = this.#request!
    const { status } = head
    if (sink !== undefined && status >= 200 && status < 300) {
      this.#streamsIntoSink = sink.begin(head)
      if (!this.#streamsIntoSink)
        throw new SpillwayError('EINTR', 'another request for the same bytes was faster')
    }
    this.dueAt = nowMs() + silenceMs
  }

  onBody(bytes: Buffer, from: number, end: number): void {
    if (this.#streamsIntoSink) {
      this.#request!.sink!.write(bytes, from, end)
      return
    }
    this.#bodyBytes += end - from
    if (this.#bodyBytes > maxRefusalBytes) throw new Error('the body of the refusal is too long')
    this.#body ??= []
    this.#body.push(Uint8Array.from(bytes.subarray(from, end)))
  }

  onDone(): void {
    this.#isWhole = true
  }

  #attach({ socket, emitsData }: OpenedSocket): void {
    this.#socket = socket
    if (emitsData) {
      socket.on('data', (bytes: Buffer) => {
        if (!this.#take(bytes, bytes.length)) socket.pause()
      })
    }
    socket.on('error', (error) => this.#close(error))
    socket.on('close', () => this.#close(undefined))
    // It may have closed while the way to it was being told.
    if (socket.destroyed) this.#close(undefined)
  }

  #finish(response: RawResponse | undefined, error: unknown): void {
    const end = this.#end!
    const isSent = this.#writer?.isDone ?? this.#socket!.writableLength === 0
    unwatch(this)
    this.#writer?.stop()
    this.#writer = undefined
    this.#request = undefined
    this.#end = undefined
    this.#body = undefined
    this.#bodyBytes = 0
    if (response === undefined) {
      this.destroy()
      end(undefined, error)
      return
    }
    this.wasUsed = true
    // What is left of the body would be taken for the next request.
    if (!this.#parser.keepAlive || !isSent) this.destroy()
    end(response, undefined)
  }

  #nextBuffer(): Uint8Array {
    this.#lent = undefined
    this.#reading = headStaging
    if (this.#request === undefined || this.#head === undefined) return headStaging
    const ahead = this.#streamsIntoSink ? this.#parser.bodyBytesAhead : 0
    const memory = ahead > 0 ? this.#request.sink!.memory() : undefined
    if (memory === undefined) {
      this.#reading = staging
      return staging
    }
    this.#lent = memory.byteLength > ahead ? memory.subarray(0, ahead) : memory
    return this.#lent
  }

  #received(bytes: number): boolean {
    return this.#lent === undefined ? this.#take(this.#reading, bytes) : this.#takeInPlace(bytes)
  }

  /** Takes bytes that were read into the memory of the sink. */
  #takeInPlace(bytes: number): boolean {
    if (this.#request === undefined) return this.#unasked()
    try {
      this.#request.sink!.filled(bytes)
      this.#parser.filled(bytes)
    } catch (error) {
      this.#failed(error)
    }
    return this.#goOn(bytes)
  }

  /** Takes bytes that lie in a buffer of somebody else's, up to `end`. */
  #take(bytes: Buffer, end: number): boolean {
    if (this.#request === undefined) return this.#unasked()
    this.hasAnswered = true
    try {
      this.#parser.push(bytes, end)
    } catch (error) {
      this.#failed(error)
    }
    return this.#goOn(end)
  }

  /** Ends a connection that says something that nobody asked for. */
  #unasked(): boolean {
    this.destroy()
    return false
  }

  #failed(error: unknown): void {
    // Of a response that is whole what follows is not part: only the connection cannot be used again.
    if (this.#isWhole) this.#parser.keepAlive = false
    else if (this.#request !== undefined) this.#finish(undefined, protocolError(error))
  }

  /** After bytes were taken: whether to read on at once. */
  #goOn(bytes: number): boolean {
    const goesOn = mayMoveMore(bytes, this)
    if (this.#isWhole && this.#request !== undefined) this.#finishWhole()
    else if (this.#request !== undefined && this.#head !== undefined) {
      this.dueAt = nextBytesDueAt(this.dueAt, bytes, nowMs(), this.#request)
      if (this.place === notWatched) watch(this)
    }
    return !this.isClosed && goesOn
  }

  #finishWhole(): void {
    const body = this.#body === undefined ? nothing : Buffer.concat(this.#body)
    this.#finish({ head: this.#head!, body }, undefined)
  }

  #close(error: Error | undefined): void {
    if (this.isClosed) return
    this.isClosed = true
    if (this.#request !== undefined) {
      if (this.#parser.closed()) this.#finishWhole()
      else
        this.#finish(undefined, error ?? connectionLost('the connection closed before the answer was whole'))
    }
    this.onClosed()
  }
}

function connectionLost(text: string): Error {
  return Object.assign(new Error(text), { code: 'ECONNRESET' })
}

function protocolError(error: unknown): unknown {
  if (error instanceof SpillwayError) return error
  return new SpillwayError('EIO', 'the answer is not what HTTP allows', { cause: error, retryable: true })
}
