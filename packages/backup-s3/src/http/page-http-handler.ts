import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import { Readable } from 'node:stream'
import type { ConnectionOptions } from 'node:tls'
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import { assertKnownOptions } from '@spillway/core'
import type { ExchangeEnd, RawRequest, RawResponse } from './connection.ts'
import { ConnectionPool, originName, type PageExchange } from './connection-pool.ts'
import type { ProxyOption } from './proxy.ts'
import { type OutgoingRequest, originOf, requestHead, targetPrefix } from './request-head.ts'
import { type PageRequestOptions, type ResponseSink, responseSink } from './response-sink.ts'
import { type Origin, Route } from './route.ts'
import { routedAgents } from './routed-agents.ts'
import { bodyPieces, takesPieces } from './upload-body.ts'

export interface PageHttpHandlerOptions {
  /** Options for https, as `ca`, `cert`, `key`, `rejectUnauthorized`: for all requests. */
  readonly tls?: ConnectionOptions
  /**
   * The proxy for all requests: its address, `false` for none, or `'environment'` for what `HTTPS_PROXY`, `HTTP_PROXY`
   * and `NO_PROXY` say. @default 'environment'
   */
  readonly proxy?: ProxyOption
  /** Agents with a way of their own to the service, for all requests. Pages are copied then, as from the SDK's own handler. */
  readonly httpAgent?: HttpAgent
  readonly httpsAgent?: HttpsAgent
  /**
   * Takes the requests that move no pages, and those that do unless its agents are plain ones of Node. @default the
   * SDK's own handler for Node
   */
  readonly fallback?: ClientRequestHandler
  /** @default 3,000; `connectTimeoutMs` of the backup goes before */
  readonly connectTimeoutMs?: number
  /** Longest silence within a body. @default 5,000; `bodyTimeoutMs` of the backup goes before */
  readonly bodyTimeoutMs?: number
  /** Connections that are kept for the next request. @default 64 */
  readonly maxIdleConnections?: number
}

/** What an `S3Client` takes as its request handler. */
export type ClientRequestHandler = Extract<
  NonNullable<S3ClientConfig['requestHandler']>,
  { handle: (...args: never[]) => unknown }
>

interface PiecesCarrier {
  readonly [bodyPieces]?: readonly Uint8Array[]
}
type HandlerOptions = PageRequestOptions & { readonly abortSignal?: AbortSignal }
/** The parts of a handler that the SDK asks for beside `handle`. */
interface HandlerConfiguration {
  updateHttpClientConfig?(key: never, value: never): void
  httpHandlerConfigs?(): { readonly httpAgent?: unknown; readonly httpsAgent?: unknown }
  destroy?(): void
}
interface HandlerResponse {
  readonly statusCode: number
  readonly headers: Record<string, string>
  readonly body: Readable
}
type Handle = (request: OutgoingRequest, options?: HandlerOptions) => Promise<{ response: unknown }>

const optionNames: readonly (keyof PageHttpHandlerOptions)[] = [
  'tls',
  'proxy',
  'httpAgent',
  'httpsAgent',
  'fallback',
  'connectTimeoutMs',
  'bodyTimeoutMs',
  'maxIdleConnections',
]
/** The least rate of a body where the backup names none: no rate at all. */
const anyRate = Number.POSITIVE_INFINITY

/**
 * A request handler for `S3Client` that is made for page traffic: a restore's body is read from the socket straight
 * into the pages, at a third of the client's CPU time, and a backup's is written straight from them. Everything else
 * goes to the SDK's own handler, the same way: with the same TLS options, and through the same proxy.
 *
 *   new S3Client({ requestHandler: pageHttpHandler(), … })
 *
 * @throws `TypeError` for options that are not known, an address of a proxy that is none, and agents beside a fallback
 */
export function pageHttpHandler(options: PageHttpHandlerOptions = {}): ClientRequestHandler {
  assertKnownOptions(options, optionNames, 'pageHttpHandler')
  if (options.fallback !== undefined && (options.httpAgent ?? options.httpsAgent) !== undefined) {
    throw new TypeError('the fallback has agents of its own: give httpAgent and httpsAgent to it')
  }
  return new PageHttpHandler(options) as unknown as ClientRequestHandler
}

/** Sends a request without the SDK; undefined where pages have to take the way of another handler. */
export const pageExchange = Symbol.for('spillway.s3.page-exchange')

/** What `pageHttpHandler()` can do for the backup beside `handle`. */
export interface PageExchanger {
  readonly handle: unknown
  [pageExchange](
    origin: Origin,
    request: RawRequest,
    options: PageRequestOptions,
    end: ExchangeEnd,
  ): PageExchange | undefined
}

/** Whether a request handler is one of `pageHttpHandler()`, as it was made. */
export function isPageExchanger(handler: unknown): handler is PageExchanger {
  return handler instanceof PageHttpHandler && handler.handle === PageHttpHandler.prototype.handle
}

class PageHttpHandler implements PageExchanger {
  readonly metadata = { handlerProtocol: 'http/1.1' }
  readonly #options: PageHttpHandlerOptions
  readonly #route: Route
  readonly #pool: ConnectionPool
  /** Services whose last answer to an upload was a refusal, or none. */
  readonly #refusing = new Set<string>()
  /** Services that do not know `Expect`. */
  readonly #withoutExpect = new Set<string>()
  /** Pools for the TLS options of a fallback's agent. */
  readonly #poolsOfAgents = new Map<object, ConnectionPool>()
  /** Was looked for in the environment, whose variables are slow to read; the backup makes a new origin each minute. */
  #withoutProxy: Origin | undefined
  #fallback: (ClientRequestHandler & HandlerConfiguration) | undefined

  constructor(options: PageHttpHandlerOptions) {
    this.#options = options
    this.#fallback = options.fallback
    this.#route = new Route(options.tls ?? {}, options.proxy ?? 'environment')
    this.#pool = new ConnectionPool(this.#route, options.maxIdleConnections ?? 64)
  }

  get [takesPieces](): boolean {
    return true
  }

  async handle(request: OutgoingRequest, options: HandlerOptions = {}): Promise<{ response: unknown }> {
    const sink = options[responseSink]
    const pieces = (request.body as PiecesCarrier | undefined)?.[bodyPieces]
    const isRestore = sink !== undefined && request.method === 'GET' && request.body === undefined
    const handler = this.#other()
    const pass = handler.handle as unknown as Handle
    if (!isRestore && pieces === undefined) return pass.call(handler, request, options)
    const origin = originOf(request)
    const pool = this.#poolFor(origin)
    if (pool === undefined) {
      const whole = pieces === undefined ? request : Object.assign(request, { body: Buffer.concat(pieces) })
      return pass.call(handler, whole, options)
    }
    if (isRestore) return this.#exchange(pool, origin, this.#raw(request, origin, { sink }, options), options)
    return this.#upload(pool, origin, request, pieces!, options)
  }

  [pageExchange](
    origin: Origin,
    request: RawRequest,
    options: PageRequestOptions,
    end: ExchangeEnd,
  ): PageExchange | undefined {
    const pool = this.#poolFor(origin)
    if (pool === undefined) return undefined
    if (origin !== this.#withoutProxy) {
      // The request line and the headers for a proxy are left to the way that knows of it.
      if (!origin.secure && this.#route.proxyFor(origin) !== undefined) return undefined
      this.#withoutProxy = origin
    }
    const connectTimeoutMs = options.connectTimeoutMs ?? this.#options.connectTimeoutMs ?? 3_000
    return pool.exchange(origin, request, { connectTimeoutMs, mayRepeat: options.mayRepeat }, end)
  }

  destroy(): void {
    for (const pool of [this.#pool, ...this.#poolsOfAgents.values()]) pool.destroy()
    this.#fallback?.destroy?.()
  }

  updateHttpClientConfig(key: never, value: never): void {
    this.#other().updateHttpClientConfig?.(key, value)
  }

  httpHandlerConfigs(): object {
    return this.#other().httpHandlerConfigs?.() ?? {}
  }

  async #upload(
    pool: ConnectionPool,
    origin: Origin,
    request: OutgoingRequest,
    pieces: readonly Uint8Array[],
    options: HandlerOptions,
  ): Promise<{ response: HandlerResponse }> {
    const name = originName(origin)
    const asks = Object.keys(request.headers).some((header) => header.toLowerCase() === 'expect')
    for (;;) {
      // The body follows its head at once, which saves a round trip, unless the service has just refused one.
      const waits = asks && this.#refusing.has(name) && !this.#withoutExpect.has(name)
      const upload = this.#raw(request, origin, { pieces, waits }, options)
      try {
        const answer = await this.#exchange(pool, origin, upload, options)
        const { statusCode } = answer.response
        if (statusCode === 417 && waits) {
          this.#withoutExpect.add(name)
          if (options.mayRepeat?.() ?? true) continue
        }
        if (statusCode < 300) this.#refusing.delete(name)
        else this.#refusing.add(name)
        return answer
      } catch (error) {
        if (!options.abortSignal?.aborted) this.#refusing.add(name)
        throw error
      }
    }
  }

  #raw(
    request: OutgoingRequest,
    origin: Origin,
    parts: { sink?: ResponseSink; pieces?: readonly Uint8Array[]; waits?: boolean },
    options: HandlerOptions,
  ): RawRequest {
    const { sink, pieces = [], waits = false } = parts
    const proxy = origin.secure ? undefined : this.#route.proxyFor(origin)
    const authorization = proxy?.authorization
    const head = requestHead(request, {
      sendsExpect: waits,
      ...(proxy === undefined ? {} : { prefix: targetPrefix(origin) }),
      ...(authorization === undefined ? {} : { extra: `proxy-authorization: ${authorization}\r\n` }),
    })
    const silenceMs = options.bodyTimeoutMs ?? this.#options.bodyTimeoutMs ?? 5_000
    const minBytesPerSecond = options.minBytesPerSecond ?? anyRate
    return { head, body: pieces, waitsForContinue: waits, sink, silenceMs, minBytesPerSecond }
  }

  #exchange(
    pool: ConnectionPool,
    origin: Origin,
    request: RawRequest,
    options: HandlerOptions,
  ): Promise<{ response: HandlerResponse }> {
    const { abortSignal, mayRepeat } = options
    const connectTimeoutMs = options.connectTimeoutMs ?? this.#options.connectTimeoutMs ?? 3_000
    return new Promise((resolve, reject) => {
      if (abortSignal?.aborted) return reject(abortSignal.reason)
      const end = (response: RawResponse | undefined, error: unknown) => {
        abortSignal?.removeEventListener('abort', onAbort)
        if (response === undefined) reject(error)
        else resolve({ response: responseOf(response) })
      }
      let exchange: PageExchange | undefined
      const onAbort = () => exchange?.abort(abortSignal!.reason)
      abortSignal?.addEventListener('abort', onAbort, { once: true })
      exchange = pool.exchange(origin, request, { connectTimeoutMs, mayRepeat }, end)
    })
  }

  #other(): ClientRequestHandler & HandlerConfiguration {
    // The handler's own package is not a dependency of this one: a client that is never used lends its handler.
    this.#fallback ??= new S3Client({
      region: 'us-east-1',
      credentials: { accessKeyId: 'none', secretAccessKey: 'none' },
      requestHandler: {
        ...routedAgents(this.#route),
        ...(this.#options.httpAgent === undefined ? {} : { httpAgent: this.#options.httpAgent }),
        ...(this.#options.httpsAgent === undefined ? {} : { httpsAgent: this.#options.httpsAgent }),
      },
    }).config.requestHandler as unknown as ClientRequestHandler
    return this.#fallback
  }

  /** The connections for pages; undefined where they have to go through the other handler. */
  #poolFor({ secure }: Origin): ConnectionPool | undefined {
    const { fallback, httpAgent, httpsAgent, tls, proxy } = this.#options
    if (fallback === undefined)
      return (secure ? httpsAgent : httpAgent) === undefined ? this.#pool : undefined
    if (tls !== undefined || proxy !== undefined) return this.#pool
    const configured = (fallback as HandlerConfiguration).httpHandlerConfigs?.() ?? {}
    const agent = secure ? configured.httpsAgent : configured.httpAgent
    // What is not known to be plain may have a way of its own.
    if (!isPlainAgent(agent)) return undefined
    let pool = this.#poolsOfAgents.get(agent)
    if (pool === undefined) {
      const { host, port, path, ...tlsOptions } = agent.options
      // The agent knows of no proxy.
      pool = new ConnectionPool(new Route(tlsOptions, false), this.#options.maxIdleConnections ?? 64)
      this.#poolsOfAgents.set(agent, pool)
    }
    return pool
  }
}

/** Whether an agent connects as Node does, and straight to the service. */
function isPlainAgent(agent: unknown): agent is { readonly options: ConnectionOptions } {
  if (typeof agent !== 'object' || agent === null) return false
  const prototype: unknown = Object.getPrototypeOf(agent)
  if (prototype !== HttpAgent.prototype && prototype !== HttpsAgent.prototype) return false
  const { options } = agent as { readonly options?: Record<string, unknown> }
  const own = ['createConnection', 'createSocket', 'addRequest'].some((name) => Object.hasOwn(agent, name))
  return !own && options?.['proxyEnv'] === undefined && options?.['socketPath'] == null
}

function responseOf({ head, body }: RawResponse): HandlerResponse {
  const { status, headers } = head
  // The bytes are checked by their own sums; of a body that the SDK does not see it must not want to check any.
  for (const name of Object.keys(headers)) if (name.startsWith('x-amz-checksum-')) delete headers[name]
  return { statusCode: status, headers, body: Readable.from(body.length === 0 ? [] : [body]) }
}
