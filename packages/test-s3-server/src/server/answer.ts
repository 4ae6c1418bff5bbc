/** Sends an answer, whole or as the fault plan wants it: cut, stalled, or with a flipped bit. */
import { randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { S3Error } from './errors.ts'
import type { S3Answer } from './operations.ts'
import type { Fault, Quirks } from './protocol.ts'
import type { OpenRecord, RequestLog } from './request-log.ts'
import { errorDocument } from './xml.ts'

interface AnswerState {
  readonly log: RequestLog
  readonly quirks: Quirks
}

const noBody = Buffer.alloc(0)
let requestIdPrefix = randomBytes(6).toString('hex')
let lastRequest = 0

function nextRequestId(): string {
  lastRequest++
  if (lastRequest % 1_000_000 === 0) requestIdPrefix = randomBytes(6).toString('hex')
  return `${requestIdPrefix}${lastRequest}`
}

function flipped(body: Buffer, atByte: number | undefined): Buffer {
  const copy = Buffer.from(body)
  if (copy.byteLength > 0) copy[Math.min(atByte ?? copy.byteLength >> 1, copy.byteLength - 1)]! ^= 1
  return copy
}

export function sendAnswer(
  state: AnswerState,
  response: ServerResponse,
  record: OpenRecord,
  answer: S3Answer,
  faults: readonly Fault[],
): void {
  if (response.destroyed) return
  let body = answer.body ?? noBody
  const headers = answer.headers
  headers['x-amz-request-id'] = nextRequestId()
  if (answer.body !== undefined || record.method !== 'HEAD') {
    if (answer.status !== 204 && answer.status !== 304) headers['content-length'] = body.byteLength
  }
  for (const fault of faults) {
    if (fault.kind !== 'headers') continue
    for (const [name, value] of Object.entries(fault.headers)) {
      if (value === null) delete headers[name]
      else headers[name] = value
    }
  }
  const cut = faults.find((fault) => fault.kind === 'cut')
  const stall = faults.find((fault) => fault.kind === 'stall')
  const flip = faults.find((fault) => fault.kind === 'flip')
  if (flip !== undefined) body = flipped(body, flip.atByte)

  if (cut !== undefined && body.byteLength === 0) {
    // Half of a head: the client cannot tell what the answer would have been.
    const socket = response.socket
    socket?.write(`HTTP/1.1 ${answer.status} OK\r\nx-amz-requ`, () => socket.destroy())
    return
  }
  const trickle = faults.find((fault) => fault.kind === 'trickle')
  if (trickle !== undefined) {
    response.writeHead(answer.status, headers)
    void sendSlowly(response, body, trickle)
    return
  }
  if (cut === undefined && stall === undefined) {
    record.status = answer.status
    record.bytesOut = body.byteLength
    state.log.end(record)
    response.writeHead(answer.status, headers)
    response.end(body)
    return
  }
  const partBytes = Math.min(body.byteLength, (cut ?? stall)!.afterBytes ?? body.byteLength >> 1)
  record.bytesOut = partBytes
  response.writeHead(answer.status, headers)
  if (cut !== undefined) {
    const end = () => response.destroy()
    if (partBytes === 0) {
      response.flushHeaders()
      response.socket?.write('', end)
    } else response.write(body.subarray(0, partBytes), end)
    return
  }
  if (partBytes === 0) response.flushHeaders()
  else response.write(body.subarray(0, partBytes))
  if (stall!.forMs === undefined) return
  void sleep(stall!.forMs).then(() => {
    if (response.destroyed) return
    record.status = answer.status
    record.bytesOut = body.byteLength
    state.log.end(record)
    response.end(body.subarray(partBytes))
  })
}

async function sendSlowly(
  response: ServerResponse,
  body: Buffer,
  { bytes, everyMs }: { readonly bytes: number; readonly everyMs: number },
): Promise<void> {
  for (let at = 0; at < body.byteLength && !response.destroyed; at += bytes) {
    response.write(body.subarray(at, at + bytes))
    await sleep(everyMs)
  }
  if (!response.destroyed) response.end()
}

export function sendError(
  state: AnswerState,
  response: ServerResponse,
  record: OpenRecord,
  error: unknown,
  resource: string,
  withoutBody: boolean,
): void {
  if (response.destroyed || response.headersSent) return
  const known =
    error instanceof S3Error
      ? error
      : new S3Error(500, 'InternalError', `The test server failed: ${(error as Error)?.stack}`)
  const requestId = nextRequestId()
  const body = Buffer.from(errorDocument(known, requestId, resource, !state.quirks.noMessage))
  record.status = known.status
  record.code = known.code
  record.bytesOut = withoutBody ? 0 : body.byteLength
  state.log.end(record)
  response.writeHead(known.status, {
    ...known.headers,
    'content-type': 'application/xml',
    'x-amz-request-id': requestId,
    ...(withoutBody ? {} : { 'content-length': body.byteLength }),
  })
  response.end(withoutBody ? undefined : body)
}
