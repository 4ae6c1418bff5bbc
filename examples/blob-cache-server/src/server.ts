import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { openFileBackup } from '@spillway/backup-file'
import { isSpillwayError } from '@spillway/core'
import { metricsText, metricsType, openDashboard } from '@spillway/observe'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { type Blob, BlobCache } from './blob-cache.ts'

/** `PUT`, `GET`, also of a range, and `HEAD /name`, `GET /` for figures, and `GET /metrics` for Prometheus: no blob has that name. The caller lets it listen, and closes it. */
export function blobServer(cache: BlobCache): Server {
  return createServer((request, response) => {
    const answering = request.method === 'PUT' ? put(cache, request, response) : get(cache, request, response)
    answering.catch((failure) => {
      if (response.headersSent) return response.destroy()
      request.resume() // the rest of an upload, or the connection would wait for a reader
      // No memory or a full disk may pass; anything else does not.
      response
        .writeHead(isSpillwayError(failure) && failure.retryable ? 503 : 500)
        .end(`${failure.message}\n`)
    })
  })
}

async function put(cache: BlobCache, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const sizeBytes = Number(request.headers['content-length'] ?? Number.NaN)
  if (Number.isNaN(sizeBytes)) return void response.writeHead(411).end()
  if (request.url === '/metrics') return void response.writeHead(405).end()
  if (sizeBytes > cache.capacityBytes) return void response.writeHead(413).end()
  // A failing write must not end the connection, which the answer still has to go through.
  const content = request.iterator({ destroyOnReturn: false })
  const { etag } = await cache.put(request.url!.slice(1), sizeBytes, content)
  response.writeHead(201, { ETag: etag }).end()
}

async function get(cache: BlobCache, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.url === '/') return void response.end(JSON.stringify(figures(cache)))
  if (request.url === '/metrics')
    return void response.setHeader('Content-Type', metricsType).end(metricsText({ pools: [cache.pool] }))
  const blob = cache.borrow(request.url!.slice(1))
  if (blob === undefined) return void response.writeHead(404).end()
  const { buffer, etag } = blob
  try {
    response.setHeader('ETag', etag).setHeader('Accept-Ranges', 'bytes')
    if (request.headers['if-none-match'] === etag) return void response.writeHead(304).end()
    const { status, offset, length } = rangeOf(request, blob)
    const range = status === 416 ? '*' : `${offset}-${offset + length - 1}`
    if (status !== 200) response.setHeader('Content-Range', `bytes ${range}/${buffer.sizeBytes}`)
    response.writeHead(status, { 'Content-Length': length })
    if (request.method === 'GET') await send(buffer, offset, length, response)
    response.end()
  } finally {
    await cache.giveBack(blob)
  }
}

/** One piece is in memory for each client, however slow it is: the next one takes the same when the system has the last. */
async function send(
  buffer: PagedBuffer,
  offset: number,
  length: number,
  response: ServerResponse,
): Promise<void> {
  const memory = Buffer.allocUnsafeSlow(Math.min(length, 256 * 1024))
  for (let sent = 0; sent < length; ) {
    const piece = memory.subarray(0, length - sent)
    await buffer.read(offset + sent, piece)
    await new Promise<void>((resolve, reject) => {
      response.write(piece, (failure) => (failure ? reject(failure) : resolve()))
    })
    sent += piece.byteLength
  }
}

/** Which bytes a request asks for. All of them for what HTTP lets a server ignore: several ranges, and one of a blob that was replaced. */
function rangeOf({ method, headers }: IncomingMessage, { etag, buffer: { sizeBytes } }: Blob) {
  const whole = { status: 200, offset: 0, length: sizeBytes }
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(headers.range ?? '') ?? []
  if (method !== 'GET' || first + last === '' || (headers['if-range'] ?? etag) !== etag) return whole
  // Without a first byte it is the number of bytes at the end.
  const offset = first === '' ? Math.max(0, sizeBytes - Number(last)) : Number(first)
  const end = first === '' || last === '' ? sizeBytes : Math.min(Number(last) + 1, sizeBytes)
  if (offset >= sizeBytes) return { status: 416, offset, length: 0 }
  return end > offset ? { status: 206, offset, length: end - offset } : whole
}

function figures({ pool, blobs, usedBytes }: BlobCache): object {
  const { limitBytes, residentBytes } = pool.stats()
  return { blobs: blobs.size, usedBytes, limitBytes, residentBytes, ...process.memoryUsage() }
}

if (import.meta.main) {
  const [port = 8080, limitMebibytes = 64, capacityGibibytes = 4, directory = '.'] = process.argv.slice(2)
  await using backup = await openFileBackup({ directory })
  await using pool = new Pool({ limitBytes: Number(limitMebibytes) * 2 ** 20, backup, name: 'blobs' })
  await using dashboard = await openDashboard()
  await using server = blobServer(new BlobCache(pool, Number(capacityGibibytes) * 2 ** 30))
  server.listen(Number(port), () => {
    console.log('listening on', server.address())
    console.log('look inside at', dashboard.url)
  })
  await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve))
}
