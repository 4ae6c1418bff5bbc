import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { openFileBackup } from '@spillway/backup-file'
import { isSpillwayError } from '@spillway/core'
import { metricsText, metricsType, openDashboard } from '@spillway/observe'
import { Pool } from '@spillway/pool'
import { BlobCache } from './blob-cache.ts'

/** `PUT`, `GET` and `HEAD /name`, `GET /` for figures, and `GET /metrics` for Prometheus: no blob has that name. The caller lets it listen, and closes it. */
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
    const unchanged = request.headers['if-none-match'] === etag
    response.writeHead(unchanged ? 304 : 200, { ETag: etag, 'Content-Length': buffer.sizeBytes })
    // One piece is in memory for each client, however slow it is.
    if (request.method === 'GET' && !unchanged)
      await pipeline(buffer.pieces({ pieceBytes: 256 * 1024 }), response)
    else response.end()
  } finally {
    await cache.giveBack(blob)
  }
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
