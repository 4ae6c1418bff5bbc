import { connect, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { type HostTimer, SpillwayError, startTimer, stopTimer } from '@spillway/core'
import { longestTimerMs } from './deadlines.ts'
import { type ProxyAddress, type ProxyOption, parseProxy, proxyOfEnvironment } from './proxy.ts'

/**
 * How sockets to a service come about:
 *
 *   http,  no proxy ─▶ TCP                    https, no proxy ─▶ TLS
 *   http,  proxy    ─▶ TCP to the proxy; the request line names the whole address
 *   https, proxy    ─▶ TCP to the proxy ─▶ CONNECT ─▶ TLS
 */

export interface Origin {
  readonly secure: boolean
  readonly host: string
  readonly port: number
}

/** Where a socket puts what it reads; with TLS inside a tunnel Node does not ask, and emits `data`. */
export interface OnRead {
  buffer(): Uint8Array
  callback(bytes: number): boolean
}

export interface OpenedSocket {
  readonly socket: Socket
  /** Whether bytes come as `data` events, and not through `onRead`. */
  readonly emitsData: boolean
}

/** How long a connection may lie idle before the system asks whether the other side is still there. */
const keepAliveDelayMs = 15_000
/** The answer to CONNECT. */
const maxTunnelHeadBytes = 16 * 1024

export class Route {
  readonly tls: ConnectionOptions
  readonly #proxy: ProxyAddress | 'environment' | undefined

  constructor(tls: ConnectionOptions, proxy: ProxyOption) {
    this.tls = tls
    this.#proxy = proxy === 'environment' ? proxy : proxy === false ? undefined : parseProxy(proxy)
  }

  /** The proxy for an origin, if it has one. */
  proxyFor({ host, port, secure }: Origin): ProxyAddress | undefined {
    return this.#proxy === 'environment' ? proxyOfEnvironment(host, port, secure) : this.#proxy
  }

  /**
   * Opens a socket. Rejects with `ETIMEDOUT`, `EIO` (the proxy refuses), the system's or TLS's error, or the signal's
   * reason.
   */
  async open(
    origin: Origin,
    onread: OnRead | undefined,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<OpenedSocket> {
    const proxy = this.proxyFor(origin)
    const opening = new Opening(origin, timeoutMs, signal)
    try {
      if (proxy === undefined) {
        const { host, port, secure } = origin
        if (!secure)
          return { socket: await opening.connected(connect({ host, port, onread })), emitsData: false }
        const options = { ...this.#tlsOptions(host), host, port, onread } as ConnectionOptions
        return { socket: await opening.secured(connectTls(options)), emitsData: false }
      }
      const { host, port } = proxy
      if (!origin.secure && !proxy.secure) {
        return { socket: await opening.connected(connect({ host, port, onread })), emitsData: false }
      }
      const socket = proxy.secure
        ? await opening.secured(connectTls({ ...this.#tlsOptions(host), host, port }))
        : await opening.connected(connect({ host, port }))
      if (!origin.secure) return { socket, emitsData: true }
      await opening.tunnelled(socket, proxy)
      const options = { ...this.#tlsOptions(origin.host), socket }
      return { socket: await opening.secured(connectTls(options)), emitsData: true }
    } catch (error) {
      opening.destroy()
      throw error
    } finally {
      opening.end()
    }
  }

  #tlsOptions(host: string): ConnectionOptions {
    // A name in the handshake must not be an address.
    return { ...(isIP(host) === 0 ? { servername: host } : {}), ALPNProtocols: ['http/1.1'], ...this.tls }
  }
}

/** One attempt to open a socket: its sockets, its time and its signal. */
class Opening {
  readonly #origin: Origin
  readonly #signal: AbortSignal | undefined
  readonly #timer: HostTimer
  readonly #sockets: Socket[] = []
  #fail: ((error: unknown) => void) | undefined
  #failure: { readonly error: unknown } | undefined
  readonly #onAbort: () => void

  constructor(origin: Origin, timeoutMs: number, signal: AbortSignal | undefined) {
    this.#origin = origin
    this.#signal = signal
    this.#onAbort = () => this.#end(signal!.reason)
    this.#timer = startTimer(
      () => {
        const where = `${origin.host}:${origin.port}`
        this.#end(new SpillwayError('ETIMEDOUT', `no connection to ${where} within ${timeoutMs} ms`))
      },
      Math.min(timeoutMs, longestTimerMs),
    )
    if (signal?.aborted) this.#end(signal.reason)
    else signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  connected(socket: Socket): Promise<Socket> {
    return this.#until(socket, 'connect')
  }

  secured(socket: Socket): Promise<Socket> {
    return this.#until(socket, 'secureConnect')
  }

  /** Asks the proxy for a way through. */
  async tunnelled(socket: Socket, proxy: ProxyAddress): Promise<void> {
    const { host, port } = this.#origin
    const target = `${isIP(host) === 6 ? `[${host}]` : host}:${port}`
    const authorization =
      proxy.authorization === undefined ? '' : `proxy-authorization: ${proxy.authorization}\r\n`
    socket.write(`CONNECT ${target} HTTP/1.1\r\nhost: ${target}\r\n${authorization}\r\n`)
    let answer = Buffer.alloc(0)
    await this.#wait((resolve, reject) => {
      const onData = (bytes: Buffer) => {
        answer = Buffer.concat([answer, bytes])
        const end = answer.indexOf('\r\n\r\n')
        if (end < 0 && answer.length <= maxTunnelHeadBytes) return
        socket.removeListener('data', onData)
        socket.removeListener('end', onEnd)
        socket.pause()
        const [line] = answer.toString('latin1', 0, Math.max(0, end)).split('\r\n')
        if (/^HTTP\/1\.[01] 2\d\d/.test(line) && end + 4 === answer.length) return resolve()
        const text = `the proxy ${proxy.host}:${proxy.port} refuses a way to ${target}: ${line || 'no answer of HTTP'}`
        reject(new SpillwayError('EIO', text, { retryable: !/ 4\d\d/.test(line) }))
      }
      const onEnd = () => {
        const text = `the proxy ${proxy.host}:${proxy.port} closed the connection`
        reject(new SpillwayError('EIO', text, { retryable: true }))
      }
      socket.on('data', onData)
      socket.once('end', onEnd)
    })
  }

  /** Ends what was opened. */
  destroy(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  end(): void {
    stopTimer(this.#timer)
    this.#signal?.removeEventListener('abort', this.#onAbort)
  }

  #end(error: unknown): void {
    this.#failure ??= { error }
    this.#fail?.(error)
  }

  #until(socket: Socket, event: 'connect' | 'secureConnect'): Promise<Socket> {
    this.#sockets.push(socket)
    socket.setNoDelay(true)
    socket.setKeepAlive(true, keepAliveDelayMs)
    // For good: an error that comes between two steps, or after them, must not end the process.
    socket.on('error', (error) => this.#end(error))
    return this.#wait((resolve) => socket.once(event, resolve)).then(() => socket)
  }

  #wait(begin: (resolve: () => void, reject: (error: unknown) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure.error)
      this.#fail = reject
      begin(resolve, reject)
    })
  }
}
