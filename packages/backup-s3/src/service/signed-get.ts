import { createHmac, hash } from 'node:crypto'
import { escapeUri, queryOf } from '../http/request-head.ts'
import type { SignedRequest } from './request-sender.ts'

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

/** What one request needs beside what all have. */
export interface SignedRange {
  readonly path: string
  readonly range: string
  readonly amzDate: string
  readonly authorization: string
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
  readonly #canonicalQuery: string
  /** Canonical headers up to the range, from there to the date, and after it; with the names and the hash of the body. */
  readonly #before: string
  readonly #between: string
  readonly #after: string
  readonly #names: string
  readonly #accessKeyId: string
  readonly #secret: string
  readonly #regionAndService: string
  readonly #headLines: string
  #second = -1
  #day = ''
  #amzDate = ''
  #key: Buffer | undefined
  #lastPath = { key: '', path: '' }

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
    this.#canonicalQuery = queryOf(request.query ?? {})
    this.query = this.#canonicalQuery === '' ? '' : `?${this.#canonicalQuery}`
    this.#accessKeyId = signed.accessKeyId
    this.#secret = secret
    this.#regionAndService = `${signed.region}/${signed.service}`
    const all = lowerCased(request.headers)
    this.headers = Object.fromEntries(Object.entries(all).filter(([name]) => !ofOneRequest.has(name)))
    const names = signed.names.filter(
      (name) => name in this.headers || name === 'range' || name === 'x-amz-date',
    )
    const line = (name: string) => `${name}:${canonicalValue(this.headers[name])}\n`
    const range = names.indexOf('range')
    const date = names.indexOf('x-amz-date')
    this.#before = names.slice(0, range).map(line).join('')
    this.#between = names
      .slice(range + 1, date)
      .map(line)
      .join('')
    this.#names = names.join(';')
    this.#after = `${names
      .slice(date + 1)
      .map(line)
      .join('')}\n${this.#names}\n${all['x-amz-content-sha256']}`
    this.#headLines = Object.entries(this.headers)
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join('')
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
    const canonical = `GET\n${request.path}\n${query}\n${lines}\n${names.join(';')}\n${headers['x-amz-content-sha256']}`
    const { day, region, service } = signed
    const scope = `${day}/${region}/${service}/aws4_request`
    const signature = sign(
      signingKey(secretAccessKey, day, `${region}/${service}`),
      `AWS4-HMAC-SHA256\n${headers['x-amz-date']}\n${scope}\n${hash('sha256', canonical)}`,
    )
    if (signature !== signed.signature) return undefined
    const pathBefore = request.path.slice(0, request.path.length - escaped.length)
    return new SignedGets(request, pathBefore, signed, secretAccessKey)
  }

  /** Signs a GET of a range. `clockMs` is the service's clock. */
  sign(key: string, offset: number, bytes: number, clockMs: number): SignedRange {
    this.#setTime(Math.floor(clockMs / 1000))
    if (this.#lastPath.key !== key) this.#lastPath = { key, path: this.#pathBefore + escapePath(key) }
    const { path } = this.#lastPath
    const range = `bytes=${offset}-${offset + bytes - 1}`
    const amzDate = this.#amzDate
    const canonical = `GET\n${path}\n${this.#canonicalQuery}\n${this.#before}range:${range}\n${this.#between}x-amz-date:${amzDate}\n${this.#after}`
    const scope = `${this.#day}/${this.#regionAndService}/aws4_request`
    const text = `AWS4-HMAC-SHA256\n${amzDate}\n${scope}\n${hash('sha256', canonical)}`
    const credential = `AWS4-HMAC-SHA256 Credential=${this.#accessKeyId}/${scope}`
    const authorization = `${credential}, SignedHeaders=${this.#names}, Signature=${sign(this.#key!, text)}`
    return { path, range, amzDate, authorization }
  }

  /** Request line and headers, with the empty line. */
  headOf({ path, range, amzDate, authorization }: SignedRange): string {
    return `GET ${path}${this.query} HTTP/1.1\r\n${this.#headLines}range: ${range}\r\nx-amz-date: ${amzDate}\r\nauthorization: ${authorization}\r\n\r\n`
  }

  #setTime(second: number): void {
    if (second === this.#second) return
    this.#second = second
    this.#amzDate = new Date(second * 1000).toISOString().replace(/[:-]|\.\d{3}/g, '')
    const day = this.#amzDate.slice(0, 8)
    if (day === this.#day) return
    this.#day = day
    this.#key = signingKey(this.#secret, day, this.#regionAndService)
  }
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

function signingKey(secret: string, day: string, regionAndService: string): Buffer {
  const [region, service] = regionAndService.split('/')
  const derive = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest()
  return derive(derive(derive(derive(`AWS4${secret}`, day), region), service), 'aws4_request')
}

function sign(key: Buffer, text: string): string {
  return createHmac('sha256', key).update(text).digest('hex')
}
