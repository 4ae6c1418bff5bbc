import { randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { abortError, assertKnownOptions, SpillwayError } from '@spillway/core'
import { livePools, type Pool } from '@spillway/pool'
import { answererOf } from './dashboard-answers.ts'
import { Frames } from './frames.ts'

export interface DashboardOptions {
  /** Where to listen: 127.0.0.1 (the default) or another of 127.0.0.0/8, ::1, or localhost, which is 127.0.0.1. */
  readonly host?: string | undefined
  /** Default 0: one that is free. */
  readonly port?: number | undefined
  /** Which pools there are. Default: all of this thread that are open. */
  readonly pools?: (() => readonly Pool[]) | undefined
  /** Stops the opening: `EINTR`. */
  readonly signal?: AbortSignal | undefined
}

/** A dashboard that is open. */
export interface Dashboard extends AsyncDisposable {
  /** The address to open in a browser, with the token that lets one in: whoever knows it sees names and figures, and no content. */
  readonly url: string
  /** Ends it. A second call does nothing more. */
  close(): Promise<void>
}

/**
 * Opens a page on this machine that shows what pools do: what is in memory of each buffer, use and limit over time, rates, hit rate,
 * latencies, backups with errors and costs. Only this machine can reach it, and only with the token in its address. While nobody looks
 * at it nothing is done, and it does not keep the process.
 *
 * ```ts
 * const { url } = await openDashboard()
 * ```
 *
 * Rejects with `EINVAL` for a host that is not loopback, `TypeError` or `RangeError` for other bad options, `EADDRINUSE` (an error of Node) for a
 * port that is taken, `EINTR` when aborted.
 */
export async function openDashboard(options: DashboardOptions = {}): Promise<Dashboard> {
  assertKnownOptions(options, ['host', 'port', 'pools', 'signal'], 'openDashboard')
  const { host = '127.0.0.1', port = 0, pools = livePools, signal } = options
  const address = loopbackAddress(host)
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new RangeError(`port is ${port}; it is from 0 to 65535`)
  if (typeof pools !== 'function') throw new TypeError('pools is no function that returns pools')
  if (signal?.aborted) throw abortError(signal)
  const frames = new Frames(pools)
  const token = randomBytes(24).toString('base64url')
  const server = createServer()
  await listening(server, address, port)
  server.unref()
  const bound = (server.address() as AddressInfo).port
  const authority = `${address === '::1' ? '[::1]' : address}:${bound}`
  server.on('request', answererOf({ frames, token, hosts: new Set([authority, `localhost:${bound}`]) }))
  let closing: Promise<void> | undefined
  const close = () => (closing ??= closed(server, frames))
  if (signal?.aborted) {
    await close()
    throw abortError(signal)
  }
  return { url: `http://${authority}/${token}/`, close, [Symbol.asyncDispose]: close }
}

function loopbackAddress(host: string): string {
  if (host === 'localhost') return '127.0.0.1'
  if (host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host)) return host
  throw new SpillwayError(
    'EINVAL',
    `host is ${host}; the dashboard is only for this machine: 127.0.0.1, ::1 or localhost`,
  )
}

function listening(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port, exclusive: true }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function closed(server: Server, frames: Frames): Promise<void> {
  frames.close()
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}
