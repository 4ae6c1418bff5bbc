/** What each S3 operation does to the store. Nothing in here waits, so each operation is atomic. */
import { createHash, randomBytes } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { Body } from './body.ts'
import { Lease } from './body-memory.ts'
import { preconditionFailed, S3Error } from './errors.ts'
import { listObjects } from './listing.ts'
import type { AcceptedCredentials, Fault, Operation, Quirks } from './protocol.ts'
import { matchesETag, type Store, type StoredObject } from './store.ts'
import { document, element, textsOf } from './xml.ts'

/** A request that was understood and whose signature is right. */
export interface S3Request {
  readonly operation: Operation
  readonly bucket: string
  readonly key: string
  readonly query: URLSearchParams
  readonly headers: IncomingHttpHeaders
}

export interface S3Answer {
  readonly status: number
  readonly headers: Record<string, string | number>
  readonly body?: Buffer | undefined
  /** Where `body` lies, retained for this answer; whoever sends it releases it. */
  readonly memory?: Lease | undefined
}

export interface Settings {
  quirks: Quirks
  clockOffsetMs: number
  readonly region: string
  /** Those that were given out for directory buckets. */
  readonly sessions: AcceptedCredentials[]
  readonly md5ETags: boolean
  readonly maxListKeys: number
}

/** Upload headers that are kept with the object and come back with it. */
const storedHeader =
  /^(content-type|cache-control|x-amz-meta-.*|x-amz-storage-class|x-amz-server-side-encryption.*|x-amz-tagging)$/

let lastWrite = 0

function header(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value.join(',') : value
}

function xmlAnswer(root: string, content: string): S3Answer {
  return {
    status: 200,
    headers: { 'content-type': 'application/xml' },
    body: Buffer.from(document(root, content)),
  }
}

export function preconditionsOf(request: S3Request, quirks: Quirks) {
  const ifMatch = header(request.headers, 'if-match')
  const ifNoneMatch = header(request.headers, 'if-none-match')
  if (quirks.ignoreConditionalPut) return {}
  if (quirks.refuseConditionalPut && (ifMatch ?? ifNoneMatch) !== undefined)
    throw new S3Error(501, 'NotImplemented', 'Conditional writes are not implemented.')
  return { ifMatch, ifNoneMatch }
}

function putObject(store: Store, request: S3Request, body: Body, settings: Settings): S3Answer {
  const { quirks } = settings
  const headers: Record<string, string> = {}
  for (const name of Object.keys(request.headers))
    if (storedHeader.test(name)) headers[name] = header(request.headers, name)!
  const serial = ++lastWrite
  const etag = settings.md5ETags
    ? createHash('md5').update(body.bytes).digest('hex')
    : createHash('md5').update(`${serial} ${body.bytes.byteLength}`).digest('hex')
  const wantsChecksum =
    request.headers['x-amz-checksum-crc32'] !== undefined ||
    body.trailers['x-amz-checksum-crc32'] !== undefined
  const object: StoredObject = {
    bytes: body.bytes,
    memory: body.memory,
    etag,
    lastModifiedMs: Date.now() + settings.clockOffsetMs,
    checksum: wantsChecksum && !quirks.noChecksums ? body.crc32() : undefined,
    headers,
  }
  const conditions = preconditionsOf(request, quirks)
  store.put(request.bucket, request.key, object, conditions, quirks.bareIfMatchOnly === true)
  const answer: Record<string, string> = { etag: quirks.emptyETag ? '' : `"${etag}"` }
  if (object.checksum !== undefined) {
    answer['x-amz-checksum-crc32'] = object.checksum
    answer['x-amz-checksum-type'] = 'FULL_OBJECT'
  }
  const encryption = headers['x-amz-server-side-encryption']
  if (encryption !== undefined) answer['x-amz-server-side-encryption'] = encryption
  return { status: 200, headers: answer }
}

/** The range of bytes asked for, `undefined` when it is no range that S3 would look at. */
function parseRange(text: string | undefined, lengthBytes: number): [number, number] | undefined {
  const match = text === undefined ? null : /^bytes=(\d*)-(\d*)$/.exec(text)
  if (match === null || (match[1] === '' && match[2] === '')) return undefined
  const unsatisfiable = () =>
    new S3Error(416, 'InvalidRange', 'The requested range is not satisfiable', {
      'content-range': `bytes */${lengthBytes}`,
    })
  if (match[1] === '') {
    if (Number(match[2]) === 0 || lengthBytes === 0) throw unsatisfiable()
    return [Math.max(0, lengthBytes - Number(match[2])), lengthBytes]
  }
  const start = Number(match[1])
  const end = match[2] === '' ? lengthBytes : Math.min(lengthBytes, Number(match[2]) + 1)
  if (start >= lengthBytes) throw unsatisfiable()
  return end <= start ? undefined : [start, end]
}

function getObject(store: Store, request: S3Request, settings: Settings, faults: readonly Fault[]): S3Answer {
  const bareOnly = settings.quirks.bareIfMatchOnly === true
  const object = store.get(request.bucket, request.key)
  const ifMatch = header(request.headers, 'if-match')
  if (ifMatch !== undefined && !matchesETag(ifMatch, object.etag, bareOnly)) throw preconditionFailed()
  const headers: Record<string, string | number> = {
    'accept-ranges': 'bytes',
    'last-modified': new Date(object.lastModifiedMs).toUTCString(),
    etag: `"${object.etag}"`,
    'content-type': 'application/octet-stream',
    ...object.headers,
  }
  delete headers['x-amz-tagging']
  const ifNoneMatch = header(request.headers, 'if-none-match')
  if (ifNoneMatch !== undefined && matchesETag(ifNoneMatch, object.etag, false))
    return { status: 304, headers: { etag: headers['etag']! } }

  const lengthBytes = object.bytes.byteLength
  const ignoreRange = faults.some((fault) => fault.kind === 'ignoreRange')
  const range = ignoreRange ? undefined : parseRange(request.headers.range, lengthBytes)
  let [start, end] = range ?? [0, lengthBytes]
  const truncate = faults.find((fault) => fault.kind === 'truncate')
  if (truncate !== undefined) end = Math.max(start, end - truncate.bytes)
  if (range !== undefined) headers['content-range'] = `bytes ${start}-${end - 1}/${lengthBytes}`
  headers['content-length'] = end - start
  if (
    range === undefined &&
    object.checksum !== undefined &&
    !settings.quirks.noChecksums &&
    request.headers['x-amz-checksum-mode'] === 'ENABLED'
  ) {
    headers['x-amz-checksum-crc32'] = object.checksum
    headers['x-amz-checksum-type'] = 'FULL_OBJECT'
  }
  const status = range === undefined ? 200 : 206
  if (request.operation === 'HeadObject') return { status, headers }
  object.memory.retain()
  return { status, headers, body: object.bytes.subarray(start, end), memory: object.memory }
}

function deleteObjects(
  store: Store,
  request: S3Request,
  body: Body,
  quirks: Quirks,
  faults: readonly Fault[],
): S3Answer {
  if (quirks.requireContentMd5 && request.headers['content-md5'] === undefined)
    throw new S3Error(400, 'InvalidRequest', 'Missing required header for this request: Content-MD5')
  const xml = body.bytes.toString('utf8')
  const keys = textsOf(xml, 'Object').length > 0 ? textsOf(xml, 'Key') : []
  if (keys.length === 0 || keys.length > 1000)
    throw new S3Error(
      400,
      'MalformedXML',
      'The XML you provided was not well-formed or has not 1 to 1000 keys.',
    )
  store.bucket(request.bucket)
  const quiet = textsOf(xml, 'Quiet')[0] === 'true'
  const refusal = faults.find((fault) => fault.kind === 'deleteErrors')
  let content = ''
  for (const key of keys) {
    if (refusal !== undefined && key.includes(refusal.keyIncludes ?? '')) {
      const error = element('Code', refusal.code) + element('Message', 'Refused by the fault plan.')
      content += `<Error>${element('Key', key)}${error}</Error>`
      continue
    }
    store.delete(request.bucket, key)
    if (!quiet) content += `<Deleted>${element('Key', key)}</Deleted>`
  }
  return xmlAnswer('DeleteResult', content)
}

/** The body with one bit flipped, after all checks. The CRC32 that the client gave stays. */
function flipStored(body: Body, atByte: number | undefined): Body {
  const bytes = Buffer.from(body.bytes)
  if (bytes.byteLength > 0) bytes[Math.min(atByte ?? bytes.byteLength >> 1, bytes.byteLength - 1)]! ^= 1
  return {
    bytes,
    memory: new Lease(bytes, bytes, undefined),
    trailers: body.trailers,
    crc32: () => body.crc32(),
  }
}

/** Directory buckets of S3 Express are told by their names. */
export function isDirectoryBucket(bucket: string): boolean {
  return bucket.endsWith('--x-s3')
}

/** Gives out credentials for a directory bucket, good for the time that AWS gives. */
function createSession(store: Store, request: S3Request, settings: Settings): S3Answer {
  store.bucket(request.bucket)
  if (!isDirectoryBucket(request.bucket))
    throw new S3Error(405, 'MethodNotAllowed', 'The specified method is not allowed against this resource.')
  const random = () => randomBytes(16).toString('hex')
  const [accessKeyId, secretAccessKey, sessionToken] = [random(), random(), random()]
  settings.sessions.push({ accessKeyId, secretAccessKey, sessionToken, isSession: true })
  const expires = new Date(Date.now() + settings.clockOffsetMs + 5 * 60_000)
  const parts = [
    element('SessionToken', sessionToken),
    element('SecretAccessKey', secretAccessKey),
    element('AccessKeyId', accessKeyId),
    element('Expiration', expires.toISOString()),
  ]
  return xmlAnswer('CreateSessionResult', `<Credentials>${parts.join('')}</Credentials>`)
}

function assertWholeFolder(prefix: string): void {
  if (prefix !== '' && !prefix.endsWith('/'))
    throw new S3Error(400, 'InvalidArgument', 'A prefix that does not end in a slash is not supported.')
}

/** Does the operation. @throws S3Error */
export function perform(
  store: Store,
  request: S3Request,
  body: Body,
  settings: Settings,
  faults: readonly Fault[],
): S3Answer {
  switch (request.operation) {
    case 'ListBuckets': {
      const buckets = store.bucketNames().map((name) => `<Bucket>${element('Name', name)}</Bucket>`)
      return xmlAnswer('ListAllMyBucketsResult', `<Buckets>${buckets.join('')}</Buckets>`)
    }
    case 'CreateBucket':
      store.createBucket(request.bucket)
      return { status: 200, headers: { location: `/${request.bucket}` } }
    case 'HeadBucket':
      store.bucket(request.bucket)
      return { status: 200, headers: { 'x-amz-bucket-region': settings.region } }
    case 'GetBucketLocation':
      store.bucket(request.bucket)
      return xmlAnswer('LocationConstraint', settings.region === 'us-east-1' ? '' : settings.region)
    case 'CreateSession':
      return createSession(store, request, settings)
    case 'DeleteBucket':
      store.deleteBucket(request.bucket)
      return { status: 204, headers: {} }
    case 'ListObjectsV2': {
      if (isDirectoryBucket(request.bucket)) assertWholeFolder(request.query.get('prefix') ?? '')
      const listing = listObjects(
        store.bucket(request.bucket),
        request.bucket,
        request.query,
        settings.maxListKeys,
      )
      const isCut = faults.some((fault) => fault.kind === 'cutListing')
      const token = /<NextContinuationToken>.*<\/NextContinuationToken>/
      return xmlAnswer('ListBucketResult', isCut ? listing.replace(token, '') : listing)
    }
    case 'DeleteObjects':
      return deleteObjects(store, request, body, settings.quirks, faults)
    case 'PutObject': {
      const flip = faults.find((fault) => fault.kind === 'flipStored')
      return putObject(store, request, flip ? flipStored(body, flip.atByte) : body, settings)
    }
    case 'GetObject':
    case 'HeadObject':
      return getObject(store, request, settings, faults)
    case 'DeleteObject': {
      const ifMatch = header(request.headers, 'if-match')
      store.delete(request.bucket, request.key, ifMatch, settings.quirks.bareIfMatchOnly === true)
      return { status: 204, headers: {} }
    }
  }
}
