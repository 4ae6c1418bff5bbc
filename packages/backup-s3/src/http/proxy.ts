import { isIP } from 'node:net'

/** Which proxy a request goes through, if any. */

/** `'environment'`: as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say; `false`: none; else the address of a proxy. */
export type ProxyOption = 'environment' | false | string | URL

export interface ProxyAddress {
  readonly host: string
  readonly port: number
  /** Whether the connection to the proxy itself is TLS. */
  readonly secure: boolean
  /** Value of `proxy-authorization`. */
  readonly authorization: string | undefined
}

type Environment = Readonly<Record<string, string | undefined>>

/** The proxy of an option. Throws `TypeError` for what is no address of an http or https proxy. */
export function parseProxy(address: string | URL): ProxyAddress {
  const text = String(address)
  let url: URL | undefined
  try {
    url = new URL(text.includes('://') ? text : `http://${text}`)
  } catch {}
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    const shown = text.replace(/\/\/[^@/]*@/, '//…@')
    throw new TypeError(`proxy is ${JSON.stringify(shown)}; it must be the address of an http or https proxy`)
  }
  const secure = url.protocol === 'https:'
  const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port)
  const named = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
  const authorization = named === ':' ? undefined : `Basic ${Buffer.from(named).toString('base64')}`
  return { host: withoutBrackets(url.hostname), port, secure, authorization }
}

/** The proxy that the environment names for a host, read afresh for each connection. */
export function proxyOfEnvironment(
  host: string,
  port: number,
  secure: boolean,
  environment: Environment = process.env,
): ProxyAddress | undefined {
  const either = (name: string) => environment[name.toLowerCase()] || environment[name] || undefined
  const address = either(secure ? 'HTTPS_PROXY' : 'HTTP_PROXY') ?? either('ALL_PROXY')
  if (address === undefined || isExempt(host, port, either('NO_PROXY') ?? '')) return undefined
  return parseProxy(address)
}

/** Whether `NO_PROXY` names the host: `*`, names with all below them, addresses, each with or without a port. */
export function isExempt(host: string, port: number, list: string): boolean {
  const name = withoutBrackets(host).toLowerCase()
  for (const part of list.toLowerCase().split(/[\s,]+/)) {
    if (part === '') continue
    if (part === '*') return true
    const match = /^(\[[^\]]*\]|[^:[\]]*|[0-9a-f:.]*)(?::(\d+))?$/.exec(part)
    if (match === null || (match[2] !== undefined && Number(match[2]) !== port)) continue
    const exempt = withoutBrackets(match[1]).replace(/^\*?\./, '')
    if (name === exempt || (isIP(name) === 0 && name.endsWith(`.${exempt}`))) return true
    if (exempt.includes('/') && isWithin(name, exempt)) return true
  }
  return false
}

/** Whether an IPv4 address lies in a block such as `10.0.0.0/8`. */
function isWithin(address: string, block: string): boolean {
  const [base, bits] = block.split('/')
  if (isIP(address) !== 4 || isIP(base) !== 4 || !/^\d+$/.test(bits) || Number(bits) > 32) return false
  const number = (text: string) => text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
  const size = 2 ** (32 - Number(bits))
  return Math.floor(number(address) / size) === Math.floor(number(base) / size)
}

function withoutBrackets(host: string): string {
  return host.replace(/^\[|\]$/g, '')
}
