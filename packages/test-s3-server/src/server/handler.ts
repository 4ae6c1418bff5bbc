/**
 * One request, from its head to the end of its answer:
 *
 *   head ─ signature ─ fault plan drawn ─ early refusals ─ 100 Continue ─ body ─ faults ─ checks ─ operation ─ faults ─ answer
 *                                                                     (atomic: checks of preconditions and the write)
 *
 * A client that goes away before its body is complete leaves nothing behind; once the body is here the operation is done,
 * whether or not anybody waits for the answer.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { sendAnswer, sendError } from './answer.ts'
import { BodyCutShort, checkBodyHeaders, discardBody, readBody, verifyBody } from './body.ts'
import type { BodyMemory, Lease } from './body-memory.ts'
import { accessDenied, notImplemented, S3Error } from './errors.ts'
import type { FaultPlan } from './fault-plan.ts'
import { isDirectoryBucket, perform, preconditionsOf, type S3Request, type Settings } from './operations.ts'
import type { AcceptedCredentials, Fault, Operation } from './protocol.ts'
import type { OpenRecord, RequestLog } from './request-log.ts'
import { verifySignature } from './signature.ts'
import type { Store } from './store.ts'

export interface ServerState extends Settings {
  readonly store: Store
  readonly faults: FaultPlan
  readonly log: RequestLog
  readonly memory: BodyMemory
  readonly maxObjectBytes: number
  credentials: readonly AcceptedCredentials[]
}

/** Parameters that stand for operations or versions that this server has not. */
const unknownParameters = [
  'acl',
  'attributes',
  'cors',
  'lifecycle',
  'partNumber',
  'policy',
  'tagging',
  'uploadId',
  'uploads',
  'versionId',
  'versioning',
  'versions',
]

function operationOf(
  method: string,
  bucket: string,
  key: string,
  query: URLSearchParams,
): Operation | undefined {
  if (unknownParameters.some((name) => query.has(name))) return undefined
  if (bucket === '') return method === 'GET' ? 'ListBuckets' : undefined
  if (key === '') {
    if (method === 'GET')
      return query.get('list-type') === '2'
        ? 'ListObjectsV2'
        : query.has('location')
          ? 'GetBucketLocation'
          : query.has('session')
            ? 'CreateSession'
            : undefined
    if (method === 'POST') return query.has('delete') ? 'DeleteObjects' : undefined
    return ({ PUT: 'CreateBucket', HEAD: 'HeadBucket', DELETE: 'DeleteBucket' } as const)[method]
  }
  return ({ PUT: 'PutObject', GET: 'GetObject', HEAD: 'HeadObject', DELETE: 'DeleteObject' } as const)[method]
}

function understand(request: IncomingMessage, path: string, query: string): S3Request {
  const slash = path.indexOf('/', 1)
  const bucket = decodeURIComponent(slash < 0 ? path.slice(1) : path.slice(1, slash))
  const named = slash < 0 ? '' : decodeURIComponent(path.slice(slash + 1))
  // The SDK puts a second slash behind a directory bucket that it finds by an address.
  const key = isDirectoryBucket(bucket) ? named.replace(/^\//, '') : named
  if (Buffer.byteLength(key) > 1024) throw new S3Error(400, 'KeyTooLongError', 'Your key is too long')
  const parameters = new URLSearchParams(query.replaceAll('+', '%2B'))
  let operation = operationOf(request.method ?? '', bucket, key, parameters)
  if (request.headers['x-amz-copy-source'] !== undefined) operation = undefined
  if (operation === undefined) throw notImplemented(`${request.method} ${request.url}`)
  return { operation, bucket, key, query: parameters, headers: request.headers }
}

/** One request under way. */
interface Exchange {
  readonly state: ServerState
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly path: string
  readonly query: string
  readonly record: OpenRecord
  /** The client waits for 100 Continue before it sends the body. */
  readonly expectsContinue: boolean
  /** It has been told to go on, or does not ask. */
  continued: boolean
  /** Keeps memory until the answer has been sent or given up. */
  hold(memory: Lease): void
}

function begin(
  state: ServerState,
  request: IncomingMessage,
  response: ServerResponse,
  expectsContinue: boolean,
): { exchange: Exchange; understood: S3Request | undefined; refusal: unknown } {
  const url = request.url ?? '/'
  const mark = url.indexOf('?')
  const path = mark < 0 ? url : url.slice(0, mark)
  const query = mark < 0 ? '' : url.slice(mark + 1)
  let understood: S3Request | undefined
  let refusal: unknown
  try {
    understood = understand(request, path, query)
  } catch (error) {
    refusal = error instanceof URIError ? new S3Error(400, 'InvalidURI', 'Could not parse the URI.') : error
  }
  const { operation = 'unknown', bucket = '', key = '' } = understood ?? {}
  const record = state.log.begin(request, operation, bucket, key, query)
  const held: Lease[] = []
  let closed = false
  response.on('close', () => {
    closed = true
    for (const memory of held) memory.release()
    if (record.endedMs === undefined) state.log.end(record)
  })
  response.on('error', () => {})
  response.sendDate = false
  response.setHeader('date', new Date(Date.now() + state.clockOffsetMs).toUTCString())
  const hold = (memory: Lease) => {
    if (closed) memory.release()
    else held.push(memory)
  }
  const continued = !expectsContinue
  const exchange = { state, request, response, path, query, record, expectsContinue, continued, hold }
  return { exchange, understood, refusal }
}

/** Settles when the request has its answer or will never get one. Never rejects. */
export async function handle(
  state: ServerState,
  request: IncomingMessage,
  response: ServerResponse,
  expectsContinue: boolean,
): Promise<void> {
  const { exchange, understood, refusal } = begin(state, request, response, expectsContinue)
  try {
    if (understood === undefined) throw refusal
    await answer(exchange, understood)
  } catch (error) {
    if (error instanceof BodyCutShort || response.destroyed) return void response.destroy()
    // A client that was not told to go on may have begun to send all the same: its connection is of no more use.
    if (exchange.continued) await discardBody(request)
    else response.setHeader('connection', 'close')
    sendError(state, response, exchange.record, error, exchange.path, request.method === 'HEAD')
  }
}

async function answer(exchange: Exchange, understood: S3Request): Promise<void> {
  const { state, request, response, path, query, record } = exchange
  const nowMs = Date.now() + state.clockOffsetMs
  const accepted = [...state.credentials, ...state.sessions]
  const user = verifySignature(request, path, query, accepted, state.region, nowMs)
  // A session is for the objects of a directory bucket, and they are for nobody else.
  const needsSession = isDirectoryBucket(understood.bucket) && understood.operation !== 'CreateSession'
  if (needsSession !== (user.isSession === true)) throw accessDenied()
  record.accessKeyId = user.accessKeyId
  if (user.deny?.includes(understood.operation)) throw accessDenied()

  const faults = state.faults.draw(
    understood.operation,
    understood.key || (understood.query.get('prefix') ?? ''),
    user.accessKeyId,
  )
  record.faults = faults.map((fault) => fault.kind)
  if (interrupt(faults, 'request', response)) return
  const refused = faults.find((fault) => fault.kind === 'error' || fault.kind === 'foreign')
  if (exchange.expectsContinue) {
    if (refused !== undefined) {
      await delay(state, faults, 'request')
      return refuse(refused, exchange)
    }
    if (understood.operation === 'PutObject') {
      const conditions = preconditionsOf(understood, state.quirks)
      const bareOnly = state.quirks.bareIfMatchOnly === true
      state.store.checkPut(understood.bucket, understood.key, conditions, bareOnly)
    }
  }
  if (refused === undefined) checkBodyHeaders(request, state.quirks, state.maxObjectBytes)
  if (!exchange.continued) response.writeContinue()
  exchange.continued = true

  const body = await readBody(request, state.memory)
  try {
    record.bytesIn = body.bytes.byteLength
    await delay(state, faults, 'request')
    if (faults.some((fault) => fault.kind === 'hang' && fault.when !== 'answer')) return
    if (refused !== undefined) return refuse(refused, exchange)
    verifyBody(request, body, state.quirks)
    const result = perform(state.store, understood, body, state, faults)
    if (result.memory !== undefined) exchange.hold(result.memory)
    await delay(state, faults, 'answer')
    if (interrupt(faults, 'answer', response)) return
    if (faults.some((fault) => fault.kind === 'hang')) return
    sendAnswer(state, response, record, result, faults)
  } finally {
    body.memory.release()
  }
}

async function delay(
  state: ServerState,
  faults: readonly Fault[],
  when: 'request' | 'answer',
): Promise<void> {
  for (const fault of faults)
    if (fault.kind === 'delay' && (fault.when ?? 'request') === when) await sleep(state.faults.delayMs(fault))
}

/** Drops the connection or kills the client where that is its fault now. */
function interrupt(faults: readonly Fault[], when: 'request' | 'answer', response: ServerResponse): boolean {
  for (const fault of faults) {
    if ((fault.kind !== 'drop' && fault.kind !== 'kill') || fault.when !== when) continue
    if (fault.kind === 'kill') {
      try {
        process.kill(fault.pid, 'SIGKILL')
      } catch {
        // It is dead already, which is what was wanted.
      }
    }
    response.destroy()
    return true
  }
  return false
}

function refuse(fault: Fault, { response, record, state }: Exchange): void {
  if (fault.kind === 'error')
    throw new S3Error(fault.status, fault.code, fault.message ?? 'Refused by the fault plan.', fault.headers)
  if (fault.kind !== 'foreign') return
  record.status = fault.status
  record.bytesOut = Buffer.byteLength(fault.body)
  state.log.end(record)
  response.writeHead(fault.status, {
    'content-type': fault.contentType,
    'content-length': Buffer.byteLength(fault.body),
  })
  response.end(fault.body)
}
