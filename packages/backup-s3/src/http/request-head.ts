import { SpillwayError } from '@spillway/core'
import type { Origin } from './route.ts'

/** The parts of the SDK's request that are needed. */
export interface OutgoingRequest {
  readonly method: string
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  readonly path: string
  readonly query?: Record<string, string | string[] | null>
  readonly headers: Record<string, string>
  readonly body?: unknown
}

export function originOf({ protocol, hostname, port }: OutgoingRequest): Origin {
  const secure = protocol === 'https:'
  if (!secure && protocol !== 'http:') {
    throw new SpillwayError('EINVAL', `pageHttpHandler() speaks http and https, not ${protocol}`)
  }
  return { secure, host: hostname.replace(/^\[|\]$/g, ''), port: port ?? (secure ? 443 : 80) }
}

/** What a request line begins its target with: nothing, or the address where a proxy has to know it. */
export function targetPrefix({ host, port }: Origin): string {
  const name = host.includes(':') ? `[${host}]` : host
  return `http://${name}${port === 80 ? '' : `:${port}`}`
}

/** RFC 9110: what the name of a header consists of. */
const headerName = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
/** Line ends would begin another header; of what is not latin1 only the low byte would be sent, which may be one. */
const notForHeaders = /[^\t\x20-\x7e\x80-\xff]/

/**
 * Request line and headers. Throws `TypeError` for a header that would not arrive as it is.
 * @param extra lines that are not the SDK's, as those for a proxy
 */
export function requestHead(
  request: OutgoingRequest,
  options: { prefix?: string; extra?: string; sendsExpect: boolean },
): string {
  const { method, path, headers } = request
  const query = queryOf(request.query ?? {})
  const { prefix = '', extra = '', sendsExpect } = options
  let head = `${method} ${prefix}${path}${query === '' ? '' : `?${query}`} HTTP/1.1\r\n${extra}`
  const seen = new Map<string, string>()
  for (const name of Object.keys(headers)) {
    const value = headers[name]
    if (!headerName.test(name) || notForHeaders.test(value)) {
      const text = `the header ${JSON.stringify(name)} has a character that HTTP does not carry; encode it`
      throw new TypeError(text)
    }
    const lower = name.toLowerCase()
    // Not among the headers that are signed.
    if (lower === 'expect' && !sendsExpect) continue
    const before = seen.get(lower)
    if (before !== undefined) {
      // Twice the same is once; of two that differ nobody knows which one was signed.
      if (before === value) continue
      throw new TypeError(`the header ${JSON.stringify(lower)} is there twice, with different values`)
    }
    seen.set(lower, value)
    head += `${name}: ${value}\r\n`
  }
  if (!seen.has('host')) head += `host: ${hostOf(request)}\r\n`
  return `${head}\r\n`
}

function hostOf({ hostname, port }: OutgoingRequest): string {
  const name = hostname.includes(':') && !hostname.startsWith('[') ? `[${hostname}]` : hostname
  return port === undefined ? name : `${name}:${port}`
}

/** In the order and with the escapes that the signature was made for. */
export function queryOf(query: Record<string, string | string[] | null>): string {
  const parts: string[] = []
  for (const key of Object.keys(query).sort()) {
    const values = query[key]
    if (Array.isArray(values)) for (const value of values) parts.push(`${escapeUri(key)}=${escapeUri(value)}`)
    else parts.push(values ? `${escapeUri(key)}=${escapeUri(values)}` : escapeUri(key))
  }
  return parts.join('&')
}

/** RFC 3986, as signatures want it. */
export function escapeUri(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}
