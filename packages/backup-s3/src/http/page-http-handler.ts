import { Readable } from 'node:stream'
import type { ConnectionOptions } from 'node:tls'
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import { assertKnownOptions, SpillwayError } from '@spillway/core'
import { Connection, type Origin, type RawRequest } from './connection.ts'
import { type PageRequestOptions, type ResponseSink, responseSink } from './response-sink.ts'
import { bodyPieces, takesPieces } from './upload-body.ts'

export interface PageHttpHandlerOptions {
  /** Takes every request that moves no pages. @default the SDK's own handler for Node */
  readonly fallback?: ClientRequestHandler
  /** @default 3,000; `connectTimeoutMs` of the backup goes before */
  readonly connectTimeoutMs?: number
  /** Longest silence within a body. @default 5,000; `bodyTimeoutMs` of the backup goes before */
  readonly bodyTimeoutMs?: number
  /** Connections that are kept for the next request. @default 64 */
  readonly maxIdleConnections?: number
  /** Options for https, as `ca`, `cert`, `key`, `rejectUnauthorized`. */
  readonly tls?: ConnectionOptions
}

/** What an `S3Client` takes as its request handler. */
export type ClientRequestHandler = Extract<
  NonNullable<S3ClientConfig['requestHandler']>,
  { handle: (...args: never[]) => unknown }
>

/** The parts of the SDK's request that are needed. */
interface OutgoingRequest {
  readonly method: string
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  readonly path: string
  readonly query?: Record<string, string | string[] | null>
  readonly headers: Record<string, string>
  readonly body?: unknown
}

interface PiecesCarrier {
  readonly [bodyPieces]?: readonly Uint8Array[]
}
type HandlerOptions = PageRequestOptions & { readonly abortSignal?: AbortSignal }
/** The parts of a handler that the SDK asks for beside `handle`. */
interface HandlerConfiguration {
  updateHttpClientConfig?(key: never, value: never): void
  httpHandlerConfigs?(): object
  destroy?(): void
}
type Handle = (request: OutgoingRequest, options?: HandlerOptions) => Promise<{ response: unknown }>

/**
 * A request handler for `S3Client` that is made for page traffic: a restore's body is read from the socket straight
 * into the pages, at a third of the client's CPU time, and a backup's is written straight from them. Everything else
 * goes to the SDK's own handler.
 *
 *   new S3Client({ requestHandler: pageHttpHandler(), … })
 */
export function pageHttpHandler(options: PageHttpHandlerOptions = {}): ClientRequestHandler {
  const known = ['fallback', 'connectTimeoutMs', 'bodyTimeoutMs', 'maxIdleConnections', 'tls']
  assertKnownOptions(options, known, 'pageHttpHandler')
  return new PageHttpHandler(options) as unknown as ClientRequestHandler
}

class PageHttpHandler {
  readonly metadata = { handlerProtocol: 'http/1.1' }
  readonly #options: PageHttpHandlerOptions
  readonly #idle = new Map<string, Connection[]>()
  /** All of them, idle and busy. It changes seldom. */
  readonly #open = new Set<Connection>()
  /** Services whose last answer to an upload was a refusal, or none. */
  readonly #refusing = new Set<string>()
  #fallback: (ClientRequestHandler & HandlerConfiguration) | undefined

  constructor(options: PageHttpHandlerOptions) {
    this.#options = options
    this.#fallback = options.fallback
  }

  get [takesPieces](): boolean {
    return true
  }

  async handle(request: OutgoingRequest, options: HandlerOptions = {}): Promise<{ response: unknown }> {
    const sink = options[responseSink]
    const pieces = (request.body as PiecesCarrier | undefined)?.[bodyPieces]
    const isRestore = sink !== undefined && request.method === 'GET' && request.body === undefined
    if (!isRestore && pieces === undefined) {
      const handler = this.#other()
      return (handler.handle as unknown as Handle).call(handler, request, options)
    }
    const silenceMs = options.bodyTimeoutMs ?? this.#options.bodyTimeoutMs ?? 5_000
    const origin = originOf(request)
    if (isRestore) return this.#exchange(origin, rawRequest(request, [], false, sink, silenceMs), options)
    const name = nameOf(origin)
    // The body follows its head at once, which saves a round trip, unless the service has just refused one.
    const waits = this.#refusing.has(name) && request.headers['Expect'] === '100-continue'
    const upload = rawRequest(request, pieces!, waits, undefined, silenceMs)
    try {
      const answer = await this.#exchange(origin, upload, options)
      if (answer.response.statusCode < 300) this.#refusing.delete(name)
      else this.#refusing.add(name)
      return answer
    } catch (error) {
      if (!options.abortSignal?.aborted) this.#refusing.add(name)
      throw error
    }
  }

  async #exchange(
    origin: Origin,
    request: RawRequest,
    options: HandlerOptions,
  ): Promise<{ response: { statusCode: number; headers: Record<string, string>; body: Readable } }> {
    const { abortSignal } = options
    // Where one kept connection was closed the others were too, or the service wants no requests.
    for (let isSecond = false; ; isSecond = true) {
      const connection = (isSecond ? undefined : this.#kept(origin)) ?? (await this.#connect(origin, options))
      try {
        const { status, headers, body } = await connection.exchange(request, abortSignal)
        this.#release(origin, connection)
        // The bytes are checked by their own sums; of a body that the SDK does not see it must not want to check any.
        for (const name of Object.keys(headers)) if (name.startsWith('x-amz-checksum-')) delete headers[name]
        return {
          response: { statusCode: status, headers, body: Readable.from(body.length === 0 ? [] : [body]) },
        }
      } catch (error) {
        // A kept connection may have been closed by the service at the moment the request went out.
        const wasStale = connection.wasUsed && !connection.hasAnswered && !abortSignal?.aborted
        // Of memory that is gone no connection can send anything.
        if (!wasStale || error instanceof TypeError) throw error
      }
    }
  }

  destroy(): void {
    for (const connection of [...this.#open]) connection.destroy()
    this.#idle.clear()
    this.#fallback?.destroy?.()
  }

  updateHttpClientConfig(key: never, value: never): void {
    this.#other().updateHttpClientConfig?.(key, value)
  }

  httpHandlerConfigs(): object {
    return this.#other().httpHandlerConfigs?.() ?? {}
  }

  #other(): ClientRequestHandler & HandlerConfiguration {
    // The handler's own package is not a dependency of this one: a client that is never used lends its handler.
    this.#fallback ??= new S3Client({
      region: 'us-east-1',
      credentials: { accessKeyId: 'none', secretAccessKey: 'none' },
    }).config.requestHandler as unknown as ClientRequestHandler
    return this.#fallback
  }

  #kept(origin: Origin): Connection | undefined {
    const kept = this.#idleOf(origin).pop()
    kept?.setIdle(false)
    return kept
  }

  async #connect(origin: Origin, options: HandlerOptions): Promise<Connection> {
    const timeoutMs = options.connectTimeoutMs ?? this.#options.connectTimeoutMs ?? 3_000
    const tls = this.#options.tls ?? {}
    const connection = await Connection.open(origin, tls, timeoutMs, options.abortSignal)
    this.#open.add(connection)
    connection.onClosed = () => {
      this.#open.delete(connection)
      const idle = this.#idleOf(origin)
      const at = idle.indexOf(connection)
      if (at >= 0) idle.splice(at, 1)
    }
    return connection
  }

  #release(origin: Origin, connection: Connection): void {
    if (connection.isClosed) return
    const idle = this.#idleOf(origin)
    if (idle.length >= (this.#options.maxIdleConnections ?? 64)) {
      connection.destroy()
      return
    }
    connection.setIdle(true)
    idle.push(connection)
  }

  #idleOf(origin: Origin): Connection[] {
    const name = nameOf(origin)
    let idle = this.#idle.get(name)
    if (idle === undefined) {
      idle = []
      this.#idle.set(name, idle)
    }
    return idle
  }
}

function originOf({ protocol, hostname, port }: OutgoingRequest): Origin {
  const secure = protocol === 'https:'
  if (!secure && protocol !== 'http:') {
    throw new SpillwayError('EINVAL', `pageHttpHandler() speaks http and https, not ${protocol}`)
  }
  return { secure, host: hostname.replace(/^\[|\]$/g, ''), port: port ?? (secure ? 443 : 80) }
}

function nameOf({ secure, host, port }: Origin): string {
  return `${secure ? 'https' : 'http'}://${host}:${port}`
}

/** Line ends would begin another header; of what is not latin1 only the low byte would be sent, which may be one. */
const notForHeaders = /[^\t\x20-\x7e\x80-\xff]/

function rawRequest(
  request: OutgoingRequest,
  body: readonly Uint8Array[],
  waitsForContinue: boolean,
  sink: ResponseSink | undefined,
  silenceMs: number,
): RawRequest {
  const { method, path, headers } = request
  const query = queryOf(request.query ?? {})
  let head = `${method} ${path}${query === '' ? '' : `?${query}`} HTTP/1.1\r\n`
  if (headers['host'] === undefined) head += `host: ${request.hostname}\r\n`
  for (const name of Object.keys(headers)) {
    // Not among the headers that are signed.
    if (name === 'Expect' && !waitsForContinue) continue
    const line = `${name}: ${headers[name]}`
    if (notForHeaders.test(line)) {
      const text = `the header ${JSON.stringify(name)} has a character that HTTP does not carry; encode it`
      throw new TypeError(text)
    }
    head += `${line}\r\n`
  }
  return { head: `${head}\r\n`, body, waitsForContinue, sink, silenceMs }
}

/** In the order and with the escapes that the signature was made for. */
function queryOf(query: Record<string, string | string[] | null>): string {
  const parts: string[] = []
  for (const key of Object.keys(query).sort()) {
    const values = query[key]
    if (Array.isArray(values)) for (const value of values) parts.push(`${escapeUri(key)}=${escapeUri(value)}`)
    else parts.push(values ? `${escapeUri(key)}=${escapeUri(values)}` : escapeUri(key))
  }
  return parts.join('&')
}

function escapeUri(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}
