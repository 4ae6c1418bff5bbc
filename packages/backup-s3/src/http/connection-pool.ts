import { isSpillwayError, nowMs } from '@spillway/core'
import { Connection, type ExchangeEnd, type RawRequest, type RawResponse } from './connection.ts'
import type { Origin, Route } from './route.ts'

/**
 * Kept connections die without a word: a NAT, a firewall or a load balancer forgets them. So no connection is used
 * that is older, or was idle for longer, than this; and where one that was kept stays silent, or turns out to be
 * closed, all that were idle at that time are given up with it, instead of being tried one after the other.
 */
const mostAgeMs = 10 * 60_000
const mostIdleMs = 60_000

export interface ExchangeOptions {
  readonly connectTimeoutMs: number
  /** Asked before a request goes out once more, on a new connection. False: it must not. */
  readonly mayRepeat?: (() => boolean) | undefined
}

/** A request that is under way. */
export interface PageExchange {
  /** Ends it at once, unless it has ended. Nothing touches its memory afterwards. */
  abort(reason: unknown): void
}

/** The connections of a handler, by service. */
export class ConnectionPool {
  readonly #route: Route
  readonly #maxIdle: number
  readonly #idle = new Map<string, Connection[]>()
  /** The one that was asked for last, and its idle connections: pages come from one service. */
  #lastOrigin: Origin | undefined
  #lastIdle: Connection[] = []
  /** All of them, idle and busy. It changes seldom. */
  readonly #open = new Set<Connection>()

  constructor(route: Route, maxIdle: number) {
    this.#route = route
    this.#maxIdle = maxIdle
  }

  /** Sends a request over a kept connection or a new one; `end` is told once, perhaps at once. */
  exchange(origin: Origin, request: RawRequest, options: ExchangeOptions, end: ExchangeEnd): PageExchange {
    return new PooledExchange(this, origin, request, options, end)
  }

  /** A connection that was kept and may be used. */
  kept(origin: Origin): Connection | undefined {
    const idle = this.#idleOf(origin)
    const now = nowMs()
    for (let kept = idle.pop(); kept !== undefined; kept = idle.pop()) {
      if (now - kept.openedAt < mostAgeMs && now - kept.idleSince < mostIdleMs) {
        kept.setIdle(false)
        return kept
      }
      kept.destroy()
    }
    return undefined
  }

  async connect(origin: Origin, timeoutMs: number, signal: AbortSignal): Promise<Connection> {
    const connection = await Connection.open(this.#route, origin, timeoutMs, signal)
    this.#open.add(connection)
    connection.onClosed = () => {
      this.#open.delete(connection)
      const idle = this.#idleOf(origin)
      const at = idle.indexOf(connection)
      if (at >= 0) idle.splice(at, 1)
    }
    if (connection.isClosed) connection.onClosed()
    return connection
  }

  /** Keeps a connection for the next request. */
  release(origin: Origin, connection: Connection): void {
    if (connection.isClosed) return
    const idle = this.#idleOf(origin)
    if (idle.length >= this.#maxIdle) {
      connection.destroy()
      return
    }
    connection.setIdle(true)
    idle.push(connection)
  }

  /** Gives up the connections that have been idle since then. */
  giveUpIdle(origin: Origin, since: number): void {
    for (const connection of [...this.#idleOf(origin)])
      if (connection.idleSince <= since) connection.destroy()
  }

  destroy(): void {
    for (const connection of [...this.#open]) connection.destroy()
    this.#idle.clear()
    this.#lastOrigin = undefined
  }

  #idleOf(origin: Origin): Connection[] {
    if (origin === this.#lastOrigin) return this.#lastIdle
    const name = originName(origin)
    let idle = this.#idle.get(name)
    if (idle === undefined) {
      idle = []
      this.#idle.set(name, idle)
    }
    this.#lastOrigin = origin
    this.#lastIdle = idle
    return idle
  }
}

/** `https://host:port` */
export function originName({ secure, host, port }: Origin): string {
  return `${secure ? 'https' : 'http'}://${host}:${port}`
}

/** A request on one connection, and on a second one when the first had been closed before it was answered. */
class PooledExchange implements PageExchange {
  readonly #pool: ConnectionPool
  readonly #origin: Origin
  readonly #request: RawRequest
  readonly #options: ExchangeOptions
  readonly #end: ExchangeEnd
  #connection: Connection | undefined
  #connecting: AbortController | undefined
  #startedAt = 0
  #isRepeated = false
  #abortReason: { readonly reason: unknown } | undefined

  constructor(
    pool: ConnectionPool,
    origin: Origin,
    request: RawRequest,
    options: ExchangeOptions,
    end: ExchangeEnd,
  ) {
    this.#pool = pool
    this.#origin = origin
    this.#request = request
    this.#options = options
    this.#end = end
    const kept = pool.kept(origin)
    if (kept === undefined) this.#connect()
    else this.#start(kept)
  }

  abort(reason: unknown): void {
    this.#abortReason ??= { reason }
    if (this.#connection !== undefined) this.#connection.abort(reason)
    else this.#connecting?.abort(reason)
  }

  #connect(): void {
    const controller = new AbortController()
    this.#connecting = controller
    this.#pool.connect(this.#origin, this.#options.connectTimeoutMs, controller.signal).then(
      (connection) => {
        this.#connecting = undefined
        if (this.#abortReason === undefined) return this.#start(connection)
        this.#pool.release(this.#origin, connection)
        this.#end(undefined, this.#abortReason.reason)
      },
      (error: unknown) => {
        this.#connecting = undefined
        this.#end(undefined, error)
      },
    )
  }

  #start(connection: Connection): void {
    this.#connection = connection
    this.#startedAt = nowMs()
    connection.start(this.#request, this.#ended)
  }

  readonly #ended = (response: RawResponse | undefined, error: unknown): void => {
    const connection = this.#connection!
    this.#connection = undefined
    if (response !== undefined) {
      this.#pool.release(this.#origin, connection)
      this.#end(response, undefined)
      return
    }
    if (connection.wasUsed && !connection.hasAnswered) {
      const wasAborted = this.#abortReason !== undefined
      const isSilent = isSpillwayError(error) && error.code === 'ETIMEDOUT'
      // The others were kept for as long: whatever closed this one, or forgot it, met them too.
      if (isSilent || !wasAborted) this.#pool.giveUpIdle(this.#origin, this.#startedAt)
      // Of memory that is gone no connection can send anything.
      const isWorthRepeating = !wasAborted && !this.#isRepeated && !(error instanceof TypeError)
      if (isWorthRepeating && (this.#options.mayRepeat?.() ?? true)) {
        this.#isRepeated = true
        this.#connect()
        return
      }
    }
    this.#end(undefined, error)
  }
}
