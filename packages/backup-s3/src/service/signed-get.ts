import { escapeUri, queryOf } from '../http/request-head.ts'
import { TextBuffer } from '../http/text-buffer.ts'
import type { SignedRequest } from './request-sender.ts'
import { SigningKey } from './signing-key.ts'

/**
 * Ranged GETs that are signed here (AWS Signature Version 4). Everything that is the same for all of them is taken from
 * one request that the SDK has signed; and only if its signature comes out here as well, to the last digit, is it a
 * pattern for others.
 */

export interface SigningIdentity {
  readonly accessKeyId?: string
  readonly secretAccessKey?: string
  readonly expiration?: Date
}

/** Bytes of an object that are asked for. */
export interface WantedRange {
  readonly key: string
  readonly offset: number
  readonly bytes: number
}

/** One request in parts, for a handler that wants them so. */
export interface SignedRange {
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}

/** Headers of the SDK that belong to a single request. */
const ofOneRequest: ReadonlySet<string> = new Set([
  'amz-sdk-invocation-id',
  'amz-sdk-request',
  'authorization',
  'range',
  'x-amz-date',
])
const authorizationForm =
  /^AWS4-HMAC-SHA256 Credential=([^/,]+)\/(\d{8})\/([^/,]+)\/([^/,]+)\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/

export class SignedGets {
  readonly protocol: string
  readonly hostname: string
  readonly port: number | undefined
  /** Headers that all requests have, by name. */
  readonly headers: Readonly<Record<string, string>>
  /** With the question mark, or nothing. */
  readonly query: string
  readonly #pathBefore: string
  /** What is signed from the path to the range, from there to the date, and after it. */
  readonly #beforeRange: string
  readonly #beforeDate: string
  readonly #afterDate: string
  readonly #signed: ParsedAuthorization
  readonly #names: string
  readonly #secret: string
  /** The head of a request from the path to the range. */
  readonly #headLines: string
  /** What is the same in a second: the date, what is signed from the range on, and what the signature follows. */
  #second = -1
  #amzDate = ''
  #afterRange = ''
  #scope = ''
  #authorization = ''
  #headAfterRange = ''
  /** What is the same in a day. */
  #day = ''
  #signingKey: SigningKey | undefined
  #lastKey = ''
  #lastPath = ''

  private constructor(
    request: SignedRequest,
    pathBefore: string,
    signed: ParsedAuthorization,
    secret: string,
  ) {
    this.protocol = request.protocol
    this.hostname = request.hostname
    this.port = request.port
    this.#pathBefore = pathBefore
    const query = queryOf(request.query ?? {})
    this.query = query === '' ? '' : `?${query}`
    this.#signed = signed
    this.#secret = secret
    const all = lowerCased(request.headers)
    this.headers = Object.fromEntries(Object.entries(all).filter(([name]) => !ofOneRequest.has(name)))
    const names = signed.names.filter(
      (name) => name in this.headers || name === 'range' || name === 'x-amz-date',
    )
    const lines = (some: readonly string[]) =>
      some.map((name) => `${name}:${canonicalValue(this.headers[name])}\n`).join('')
    const range = names.indexOf('range')
    const date = names.indexOf('x-amz-date')
    this.#beforeRange = `\n${query}\n${lines(names.slice(0, range))}range:`
    this.#beforeDate = `\n${lines(names.slice(range + 1, date))}x-amz-date:`
    const after = lines(names.slice(date + 1))
    this.#afterDate = `\n${after}\n${names.join(';')}\n${all['x-amz-content-sha256']}`
    this.#names = names.join(';')
    const headLines = Object.entries(this.headers).map(([name, value]) => `${name}: ${value}\r\n`)
    this.#headLines = `${this.query} HTTP/1.1\r\n${headLines.join('')}range: `
  }

  /** A pattern, if the request's signature comes out here too; `key` is what it asks for. */
  static from(request: SignedRequest, key: string, identity: SigningIdentity): SignedGets | undefined {
    const { accessKeyId, secretAccessKey } = identity
    const headers = lowerCased(request.headers)
    const signed = parseAuthorization(headers['authorization'])
    if (signed === undefined || secretAccessKey === undefined || accessKeyId !== signed.accessKeyId)
      return undefined
    const { names } = signed
    const escaped = escapePath(key)
    const wanted = ['host', 'range', 'x-amz-date']
    if (!request.path.endsWith(`/${escaped}`) || wanted.some((name) => !names.includes(name)))
      return undefined
    if (names.indexOf('range') > names.indexOf('x-amz-date') || names.some((name) => !(name in headers)))
      return undefined
    const lines = names.map((name) => `${name}:${canonicalValue(headers[name])}\n`).join('')
    const query = queryOf(request.query ?? {})
    const wholeText = `GET\n${request.path}\n${query}\n${lines}\n${names.join(';')}\n${headers['x-amz-content-sha256']}`
    const { day, region, service } = signed
    const scope = `AWS4-HMAC-SHA256\n${headers['x-amz-date']}\n${day}/${region}/${service}/aws4_request\n`
    const signingKey = new SigningKey(secretAccessKey, day, region, service)
    const signature = signingKey.sign(scope, canonical.set(wholeText))
    if (signature !== signed.signature) return undefined
    const pathBefore = request.path.slice(0, request.path.length - escaped.length)
    return new SignedGets(request, pathBefore, signed, secretAccessKey)
  }

  /** Signs a GET of a range and writes its head, with the empty line. `clockMs` is the service's clock. */
  writeHead(wanted: WantedRange, clockMs: number, head: TextBuffer): void {
    const path = this.#pathOf(wanted.key)
    const range = rangeOf(wanted)
    const signature = this.#sign(path, range, clockMs)
    head.set('GET ').add(path).add(this.#headLines).add(range).add(this.#headAfterRange).add(signature)
    head.add('\r\n\r\n')
  }

  /** Signs a GET of a range. `clockMs` is the service's clock. */
  sign(wanted: WantedRange, clockMs: number): SignedRange {
    const path = this.#pathOf(wanted.key)
    const range = rangeOf(wanted)
    const authorization = this.#sign(path, range, clockMs)
    const own = {
      range,
      'x-amz-date': this.#amzDate,
      authorization: this.#authorization + authorization,
    }
    return { path: path + this.query, headers: { ...this.headers, ...own } }
  }

  #sign(path: string, range: string, clockMs: number): string {
    this.#setTime(Math.floor(clockMs / 1000))
    canonical.set('GET\n').add(path).add(this.#beforeRange).add(range).add(this.#afterRange)
    return this.#signingKey!.sign(this.#scope, canonical)
  }

  #pathOf(key: string): string {
    if (key !== this.#lastKey) {
      this.#lastKey = key
      this.#lastPath = this.#pathBefore + escapePath(key)
    }
    return this.#lastPath
  }

  #setTime(second: number): void {
    if (second === this.#second) return
    this.#second = second
    const amzDate = new Date(second * 1000).toISOString().replace(/[:-]|\.\d{3}/g, '')
    const day = amzDate.slice(0, 8)
    const { accessKeyId, region, service } = this.#signed
    if (day !== this.#day) {
      this.#day = day
      this.#signingKey = new SigningKey(this.#secret, day, region, service)
    }
    const scope = `${day}/${region}/${service}/aws4_request`
    this.#amzDate = amzDate
    this.#afterRange = `${this.#beforeDate}${amzDate}${this.#afterDate}`
    this.#scope = `AWS4-HMAC-SHA256\n${amzDate}\n${scope}\n`
    const credential = `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}`
    this.#authorization = `${credential}, SignedHeaders=${this.#names}, Signature=`
    this.#headAfterRange = `\r\nx-amz-date: ${amzDate}\r\nauthorization: ${this.#authorization}`
  }
}

/** What is signed; made and hashed in one go. */
const canonical = new TextBuffer('utf8')

function rangeOf({ offset, bytes }: WantedRange): string {
  return `bytes=${offset}-${offset + bytes - 1}`
}

interface ParsedAuthorization {
  readonly accessKeyId: string
  readonly day: string
  readonly region: string
  readonly service: string
  readonly names: readonly string[]
  readonly signature: string
}

function parseAuthorization(header: string | undefined): ParsedAuthorization | undefined {
  const match = authorizationForm.exec(header ?? '')
  if (match === null) return undefined
  const [, accessKeyId, day, region, service, names, signature] = match
  return { accessKeyId, day, region, service, names: names.split(';'), signature }
}

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
}

function canonicalValue(value: string): string {
  return value.trim().replace(/\s+/g, ' ')
}

function escapePath(key: string): string {
  return /^[A-Za-z0-9/_.~-]*$/.test(key) ? key : key.split('/').map(escapeUri).join('/')
}
