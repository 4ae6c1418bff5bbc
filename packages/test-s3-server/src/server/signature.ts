/**
 * AWS Signature Version 4 in the `Authorization` header, checked against the request as it came over the wire:
 *
 *   canonical request ─ SHA-256 ─▶ string to sign ─ HMAC with the key of (secret, date, region, service) ─▶ signature
 *
 * The body takes part by the hash in `x-amz-content-sha256`, which `body.ts` compares with what was received.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { accessDenied, S3Error } from './errors.ts'
import type { AcceptedCredentials } from './protocol.ts'

const algorithm = 'AWS4-HMAC-SHA256'
const skewLimitMs = 15 * 60 * 1000
const signingKeys = new Map<string, Buffer>()

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}

function signingKey(secretAccessKey: string, date: string, region: string, service: string): Buffer {
  const name = `${date} ${region} ${service} ${secretAccessKey}`
  let key = signingKeys.get(name)
  if (key === undefined) {
    key = hmac(hmac(hmac(hmac(`AWS4${secretAccessKey}`, date), region), service), 'aws4_request')
    if (signingKeys.size > 100) signingKeys.clear()
    signingKeys.set(name, key)
  }
  return key
}

function awsEncode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function canonicalQuery(rawQuery: string): string {
  if (rawQuery === '') return ''
  return rawQuery
    .split('&')
    .map((pair): [string, string] => {
      const at = pair.indexOf('=')
      const name = at < 0 ? pair : pair.slice(0, at)
      const value = at < 0 ? '' : pair.slice(at + 1)
      return [awsEncode(decodeURIComponent(name)), awsEncode(decodeURIComponent(value))]
    })
    .sort((a, b) => compare(a[0], b[0]) || compare(a[1], b[1]))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
}

function parseAmzDate(text: string): number {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text)
  if (match === null) return Number.NaN
  const [, year, month, day, hour, minute, second] = match.map(Number)
  return Date.UTC(year!, month! - 1, day, hour, minute, second)
}

/**
 * The credentials that signed this request.
 * @throws S3Error 403 or 400, with S3's own codes, when they are none of the accepted ones or the signature is wrong
 */
export function verifySignature(
  request: IncomingMessage,
  rawPath: string,
  rawQuery: string,
  accepted: readonly AcceptedCredentials[],
  region: string,
  nowMs: number,
): AcceptedCredentials {
  const authorization = request.headers.authorization
  if (authorization === undefined) throw accessDenied()
  const match =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/(s3|s3express)\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
      authorization,
    )
  if (match === null)
    throw new S3Error(
      400,
      'AuthorizationHeaderMalformed',
      'The authorization header is malformed; expected AWS Signature Version 4 for s3.',
    )
  const [, accessKeyId, date, signedRegion, service, signedHeaders, signature] = match as unknown as string[]
  const credentials = accepted.find((candidate) => candidate.accessKeyId === accessKeyId)
  if (credentials === undefined)
    throw new S3Error(
      403,
      'InvalidAccessKeyId',
      'The AWS Access Key Id you provided does not exist in our records.',
    )
  if (signedRegion !== region)
    throw new S3Error(
      400,
      'AuthorizationHeaderMalformed',
      `The authorization header is malformed; the region '${signedRegion}' is wrong; expecting '${region}'`,
      { 'x-amz-bucket-region': region },
      { Region: region },
    )

  const names = signedHeaders!.split(';')
  const amzDate = request.headers['x-amz-date']
  if (typeof amzDate !== 'string' || !names.includes('host') || amzDate.slice(0, 8) !== date)
    throw accessDenied('AWS authentication requires a valid Date or x-amz-date header')
  for (const name of Object.keys(request.headers))
    if (name.startsWith('x-amz-') && !names.includes(name))
      throw accessDenied(`There were headers present in the request which were not signed: ${name}`)
  const headers = names
    .map((name) => {
      const value = request.headers[name]
      const text = Array.isArray(value) ? value.join(',') : (value ?? '')
      return `${name}:${text.trim().replace(/ +/g, ' ')}\n`
    })
    .join('')
  const bodyHash = String(request.headers['x-amz-content-sha256'] ?? '')
  const canonicalRequest = `${request.method}\n${rawPath}\n${canonicalQuery(rawQuery)}\n${headers}\n${signedHeaders}\n${bodyHash}`
  const stringToSign = `${algorithm}\n${amzDate}\n${date}/${signedRegion}/${service}/aws4_request\n${createHash('sha256').update(canonicalRequest).digest('hex')}`
  const expected = hmac(signingKey(credentials.secretAccessKey, date!, signedRegion!, service!), stringToSign)
  if (!timingSafeEqual(expected, Buffer.from(signature!, 'hex')))
    throw new S3Error(
      403,
      'SignatureDoesNotMatch',
      'The request signature we calculated does not match the signature you provided. Check your key and signing method.',
    )

  // S3 judges the token and the clock of a request only when it is really from the one it claims.
  const skewMs = Math.abs(parseAmzDate(amzDate) - nowMs)
  if (!(skewMs <= skewLimitMs))
    throw new S3Error(
      403,
      'RequestTimeTooSkewed',
      'The difference between the request time and the current time is too large.',
    )
  const tokenHeader = credentials.isSession ? 'x-amz-s3session-token' : 'x-amz-security-token'
  if (request.headers[tokenHeader] !== credentials.sessionToken)
    throw new S3Error(400, 'InvalidToken', 'The provided token is malformed or otherwise invalid.')
  return credentials
}
