/**
 * Request bodies: by `content-length` into one buffer, or `aws-chunked`:
 *
 *   size in hex CRLF, bytes CRLF, … , 0 CRLF, trailer headers (x-amz-checksum-crc32: …) CRLF, CRLF
 *
 * Every check that the client asked for is made before anything is stored: the signed SHA-256, CRC32, Content-MD5.
 */
import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { crc32 } from 'node:zlib'
import type { BodyMemory, Lease } from './body-memory.ts'
import { S3Error } from './errors.ts'
import type { Quirks } from './protocol.ts'

export interface Body {
  readonly bytes: Buffer
  /** Where `bytes` lie; whoever read the body releases it. */
  readonly memory: Lease
  /** Headers that came after the body. */
  readonly trailers: Readonly<Record<string, string>>
  /** CRC32 as 4 bytes in base64; computed once, on first use. */
  crc32(): string
}

/** The request was not received to its end: nothing can be answered, nothing may be stored. */
export class BodyCutShort extends Error {}

const crlf = Buffer.from('\r\n')

export function isAwsChunked(request: IncomingMessage): boolean {
  return String(request.headers['content-encoding'] ?? '').includes('aws-chunked')
}

/** Refusals that need no look at the body. */
export function checkBodyHeaders(request: IncomingMessage, quirks: Quirks, maxBytes: number): void {
  if (isAwsChunked(request)) {
    if (quirks.refuseAwsChunked)
      throw new S3Error(411, 'MissingContentLength', 'You must provide the Content-Length HTTP header.')
    return
  }
  if (request.method !== 'PUT' && request.method !== 'POST') return
  const lengthBytes = request.headers['content-length']
  if (lengthBytes === undefined && request.headers['transfer-encoding'] !== undefined)
    throw new S3Error(411, 'MissingContentLength', 'You must provide the Content-Length HTTP header.')
  if (Number(lengthBytes ?? 0) > maxBytes)
    throw new S3Error(400, 'EntityTooLarge', 'Your proposed upload exceeds the maximum allowed size.')
}

/** Reads the whole body. Rejects with `BodyCutShort` when the connection ends before it. */
export async function readBody(request: IncomingMessage, memory: BodyMemory): Promise<Body> {
  if (isAwsChunked(request)) return decodeAwsChunked(await collect(request), request, memory)
  const lengthBytes = Number(request.headers['content-length'] ?? 0)
  const lease = memory.lease(lengthBytes)
  try {
    if (lengthBytes === 0) request.resume()
    else await fill(request, lease.bytes)
  } catch (error) {
    lease.release()
    throw error
  }
  return makeBody(lease)
}

/** Takes what is left of a body that nobody wants. */
export function discardBody(request: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    if (request.complete || request.destroyed) return resolve()
    request.on('end', resolve)
    request.on('close', resolve)
    request.on('error', resolve)
    request.resume()
  })
}

export function makeBody(memory: Lease, trailers: Readonly<Record<string, string>> = {}): Body {
  const { bytes } = memory
  let checksum: string | undefined
  return {
    bytes,
    memory,
    trailers,
    crc32() {
      if (checksum === undefined) {
        const four = Buffer.alloc(4)
        four.writeUInt32BE(crc32(bytes))
        checksum = four.toString('base64')
      }
      return checksum
    },
  }
}

function fill(request: IncomingMessage, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    let filledBytes = 0
    request.on('data', (piece: Buffer) => {
      bytes.set(piece, filledBytes)
      filledBytes += piece.byteLength
    })
    request.on('end', () => (filledBytes === bytes.byteLength ? resolve() : reject(new BodyCutShort())))
    request.on('close', () => reject(new BodyCutShort()))
    request.on('error', () => reject(new BodyCutShort()))
  })
}

function collect(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = []
    request.on('data', (piece: Buffer) => pieces.push(piece))
    request.on('end', () => resolve(Buffer.concat(pieces)))
    request.on('close', () => reject(new BodyCutShort()))
    request.on('error', () => reject(new BodyCutShort()))
  })
}

function decodeAwsChunked(framed: Buffer, request: IncomingMessage, memory: BodyMemory): Body {
  const incomplete = () =>
    new S3Error(400, 'IncompleteBody', 'The request body terminated unexpectedly or is not aws-chunked.')
  const pieces: Buffer[] = []
  let at = 0
  for (;;) {
    const lineEnd = framed.indexOf(crlf, at)
    if (lineEnd < 0) throw incomplete()
    const size = framed.toString('latin1', at, lineEnd).split(';', 1)[0]!
    if (!/^[0-9a-f]+$/i.test(size)) throw incomplete()
    const sizeBytes = Number.parseInt(size, 16)
    at = lineEnd + 2
    if (sizeBytes === 0) break
    if (at + sizeBytes + 2 > framed.byteLength || framed.indexOf(crlf, at + sizeBytes) !== at + sizeBytes)
      throw incomplete()
    pieces.push(framed.subarray(at, at + sizeBytes))
    at += sizeBytes + 2
  }
  const trailers: Record<string, string> = {}
  for (const line of framed.toString('latin1', at).split('\r\n')) {
    const colon = line.indexOf(':')
    if (colon > 0) trailers[line.slice(0, colon).trim().toLowerCase()] = line.slice(colon + 1).trim()
  }
  const lengthBytes = pieces.reduce((sum, piece) => sum + piece.byteLength, 0)
  const decodedLength = request.headers['x-amz-decoded-content-length']
  if (decodedLength !== undefined && Number(decodedLength) !== lengthBytes) throw incomplete()
  const announced = request.headers['x-amz-trailer']
  if (typeof announced === 'string' && trailers[announced.toLowerCase()] === undefined)
    throw new S3Error(
      400,
      'MalformedTrailerError',
      'The request contained trailing data that was not well-formed.',
    )
  const lease = memory.lease(lengthBytes)
  let filledBytes = 0
  for (const piece of pieces) {
    lease.bytes.set(piece, filledBytes)
    filledBytes += piece.byteLength
  }
  return makeBody(lease, trailers)
}

/** @throws S3Error 400 when the body is not what its checksums say */
export function verifyBody(request: IncomingMessage, body: Body, quirks: Quirks): void {
  const sha256 = String(request.headers['x-amz-content-sha256'] ?? '')
  if (/^[0-9a-f]{64}$/.test(sha256) && createHash('sha256').update(body.bytes).digest('hex') !== sha256)
    throw new S3Error(
      400,
      'XAmzContentSHA256Mismatch',
      "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )
  const md5 = request.headers['content-md5']
  if (md5 !== undefined && createHash('md5').update(body.bytes).digest('base64') !== md5)
    throw new S3Error(400, 'BadDigest', 'The Content-MD5 you specified did not match what we received.')
  if (quirks.noChecksums) return
  const claimed = request.headers['x-amz-checksum-crc32'] ?? body.trailers['x-amz-checksum-crc32']
  if (claimed !== undefined && body.crc32() !== claimed)
    throw new S3Error(400, 'BadDigest', 'The CRC32 you specified did not match the calculated checksum.')
}
