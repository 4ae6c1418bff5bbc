import { connect, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { type HostTimer, SpillwayError, startTimer, stopTimer } from '@spillway/core'
import { RequestWriter } from './request-writer.ts'
import { type ParsedHead, ResponseParser } from './response-parser.ts'
import type { ResponseSink } from './response-sink.ts'
import { takeFromTurn } from './turn-budget.ts'

/**
 * What is read when the bytes have no place of their own yet. One for all connections: it is filled and looked
 * through in one go, and nothing in it is needed afterwards.
 */
const staging = Buffer.allocUnsafeSlow(256 * 1024)
/** What is read before the head is known: little, so that most of the body goes straight to its place. */
const headBytes = 8 * 1024
/** Bodies of refusals are short. */
const maxRefusalBytes = 1024 * 1024

export interface Origin {
  readonly secure: boolean
  readonly host: string
  readonly port: number
}

export interface RawRequest {
  /** Request line and headers, with the empty line. */
  readonly head: string
  /** The body, in pieces that nobody changes before the response or the error is there. */
  readonly body: readonly Uint8Array[]
  /** Whether the body is held back until the service wants it. */
  readonly waitsForContinue: boolean
  /** Where the body of a successful response goes; without it, and of a refusal, it is in the response. */
  readonly sink: ResponseSink | undefined
  /** Longest silence within the response's body. */
  readonly silenceMs: number
}

export interface RawResponse extends ParsedHead {
  /** The body, unless it went into the sink. */
  readonly body: Buffer
}

/** One request and its response. */
interface Exchange {
  readonly parser: ResponseParser
  readonly writer: RequestWriter
  readonly sink: ResponseSink | undefined
  readonly finish: (response: RawResponse | undefined, error?: Error) => void
  hasHead: boolean
  streamsIntoSink: boolean
  lent: Uint8Array | undefined
}

/**
 * A connection that reads bodies straight into the memory of the sink: before each read the socket asks where to put
 * the bytes, and gets the pages themselves where they are large enough, else a buffer that is copied from.
 *
 *   connecting ─▶ idle ─▶ request ─▶ idle ─▶ …
 *                   └──── closed ◀────┘ (on error, abort, `connection: close`)
 */
export class Connection {
  readonly #socket: Socket
  readonly #secure: boolean
  #exchange: Exchange | undefined
  #timer: HostTimer | undefined
  /** Whether it has carried a response before. */
  wasUsed = false
  /** Whether any byte of the current response has come. */
  hasAnswered = false
  isClosed = false
  onClosed: () => void = () => {}

  private constructor(origin: Origin, options: ConnectionOptions) {
    const { host, port } = origin
    this.#secure = origin.secure
    const onread = { buffer: () => this.#nextBuffer(), callback: (bytes: number) => this.#received(bytes) }
    this.#socket = origin.secure
      ? connectTls({
          // A name in the handshake must not be an address.
          ...(isIP(host) === 0 ? { servername: host } : {}),
          ALPNProtocols: ['http/1.1'],
          ...options,
          host,
          port,
          onread,
        } as ConnectionOptions)
      : connect({ host, port, onread })
    this.#socket.setNoDelay(true)
    this.#socket.on('error', (error) => this.#close(error))
    this.#socket.on('close', () => this.#close(undefined))
  }

  /** Connects. Rejects with `ETIMEDOUT`, the system's error, or the signal's reason. */
  static open(
    origin: Origin,
    options: ConnectionOptions,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const connection = new Connection(origin, options)
      const socket = connection.#socket
      const settle = (error?: unknown) => {
        stopTimer(timer)
        signal?.removeEventListener('abort', onAbort)
        socket.removeListener('error', settle)
        if (error === undefined) return resolve(connection)
        connection.destroy()
        reject(error)
      }
      const onAbort = () => settle(signal!.reason)
      const timer = startTimer(() => {
        const where = `${origin.host}:${origin.port}`
        settle(new SpillwayError('ETIMEDOUT', `no connection to ${where} within ${timeoutMs} ms`))
      }, timeoutMs)
      socket.once(origin.secure ? 'secureConnect' : 'connect', () => settle())
      socket.once('error', settle)
      signal?.addEventListener('abort', onAbort, { once: true })
      if (signal?.aborted) onAbort()
    })
  }

  /** Sends a request and reads the response. */
  exchange(request: RawRequest, signal: AbortSignal | undefined): Promise<RawResponse> {
    const { head, body, waitsForContinue, sink, silenceMs } = request
    this.hasAnswered = false
    return new Promise((resolve, reject) => {
      // It will not say so once more.
      if (this.isClosed) return reject(connectionLost('the connection closed before the request was sent'))
      const writer = new RequestWriter(this.#socket, body, this.#secure)
      const finish = (response: RawResponse | undefined, error?: Error) => {
        stopTimer(this.#timer)
        this.#timer = undefined
        writer.stop()
        signal?.removeEventListener('abort', onAbort)
        this.#exchange = undefined
        if (response === undefined) {
          this.destroy()
          return reject(error)
        }
        this.wasUsed = true
        // What is left of the body would be taken for the next request.
        if (!parser.keepAlive || !writer.isDone) this.destroy()
        resolve(response)
      }
      const onAbort = () => finish(undefined, signal!.reason as Error)
      const parser = new ResponseParser(this.#events(sink, silenceMs))
      const isNew = { hasHead: false, streamsIntoSink: false, lent: undefined }
      this.#exchange = { parser, writer, sink, finish, ...isNew }
      if (signal?.aborted) return onAbort()
      signal?.addEventListener('abort', onAbort, { once: true })
      writer.start(head, waitsForContinue)
    })
  }

  /** An idle connection does not keep the process alive. */
  setIdle(idle: boolean): void {
    if (idle) this.#socket.unref()
    else this.#socket.ref()
  }

  /** Reads on, after it has paused for the others. */
  resume(): void {
    if (!this.isClosed) this.#socket.resume()
  }

  /** Ends at once: nothing is written into anybody's memory afterwards. */
  destroy(): void {
    this.#socket.destroy()
    this.#close(undefined)
  }

  #events(sink: ResponseSink | undefined, silenceMs: number) {
    let head: ParsedHead | undefined
    const body: Uint8Array[] = []
    let bodyBytes = 0
    return {
      onContinue: () => this.#exchange!.writer.proceed(),
      onHead: (parsed: ParsedHead) => {
        head = parsed
        const exchange = this.#exchange!
        exchange.hasHead = true
        const { status, headers } = parsed
        if (sink !== undefined && status >= 200 && status < 300) {
          const length = headers['content-length']
          exchange.streamsIntoSink = sink.begin({
            status,
            contentRange: headers['content-range'],
            contentLength: length === undefined ? undefined : Number(length),
            etag: headers['etag'],
          })
          if (!exchange.streamsIntoSink)
            throw new SpillwayError('EINTR', 'another request for the same bytes was faster')
        }
        this.#timer = startTimer(() => {
          const text = `the body of the answer fell silent for ${silenceMs} ms`
          this.#exchange?.finish(undefined, new SpillwayError('ETIMEDOUT', text))
        }, silenceMs)
      },
      onBody: (chunk: Uint8Array) => {
        if (this.#exchange!.streamsIntoSink) return sink!.write(chunk)
        bodyBytes += chunk.byteLength
        if (bodyBytes > maxRefusalBytes) throw new Error('the body of the refusal is too long')
        body.push(Uint8Array.from(chunk))
      },
      onDone: () => this.#exchange!.finish({ ...head!, body: Buffer.concat(body) }),
    }
  }

  #nextBuffer(): Uint8Array {
    const exchange = this.#exchange
    if (exchange !== undefined) exchange.lent = undefined
    if (exchange === undefined || !exchange.hasHead) return staging.subarray(0, headBytes)
    const ahead = exchange.streamsIntoSink ? exchange.parser.bodyBytesAhead : 0
    const memory = ahead > 0 ? exchange.sink!.memory() : undefined
    if (memory === undefined) return staging
    exchange.lent = memory.byteLength > ahead ? memory.subarray(0, ahead) : memory
    return exchange.lent
  }

  #received(bytes: number): boolean {
    const exchange = this.#exchange
    if (exchange === undefined) {
      // Nobody asked for anything.
      this.destroy()
      return false
    }
    this.hasAnswered = true
    this.#timer?.refresh?.()
    try {
      if (exchange.lent !== undefined) {
        exchange.sink!.filled(bytes)
        exchange.parser.filled(bytes)
      } else {
        exchange.parser.push(staging.subarray(0, bytes))
      }
    } catch (error) {
      exchange.finish(undefined, protocolError(error))
    }
    return !this.isClosed && takeFromTurn(bytes, this)
  }

  #close(error: Error | undefined): void {
    if (this.isClosed) return
    this.isClosed = true
    const exchange = this.#exchange
    if (exchange !== undefined && !exchange.parser.closed()) {
      exchange.finish(undefined, error ?? connectionLost('the connection closed before the answer was whole'))
    }
    this.onClosed()
  }
}

function connectionLost(text: string): Error {
  return Object.assign(new Error(text), { code: 'ECONNRESET' })
}

function protocolError(error: unknown): Error {
  if (error instanceof SpillwayError) return error
  return new SpillwayError('EIO', 'the answer is not what HTTP allows', { cause: error, retryable: true })
}
