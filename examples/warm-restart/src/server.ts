import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { isSpillwayError } from '@spillway/core'
import { WarmCache } from './warm-cache.ts'

/** `PUT`, `GET` and `DELETE /name`, and `GET /` for the names. */
export function warmServer(cache: WarmCache): Server {
  return createServer((request, response) => {
    answer(cache, request, response).catch((failure) => {
      if (response.headersSent) return response.destroy()
      request.resume() // the rest of an upload, or the connection would wait for a reader
      // No memory or a full disk may pass; anything else does not.
      const status = isSpillwayError(failure) && failure.retryable ? 503 : 500
      response.writeHead(status).end(`${failure.message}\n`)
    })
  })
}

async function answer(cache: WarmCache, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const name = request.url!.slice(1)
  if (request.method === 'PUT') {
    const sizeBytes = Number(request.headers['content-length'])
    if (!(sizeBytes > 0) || name === '') return void response.writeHead(400).end()
    await cache.put(name, sizeBytes, request.iterator({ destroyOnReturn: false }))
    return void response.writeHead(201).end()
  }
  if (request.method === 'DELETE') {
    await cache.delete(name)
    return void response.writeHead(204).end()
  }
  if (name === '') return void response.end(JSON.stringify(cache.names))
  const isThere = await cache.use(name, async (buffer) => {
    response.writeHead(200, { 'Content-Length': buffer.sizeBytes })
    await pipeline(buffer.pieces({ pieceBytes: 256 * 1024 }), response)
  })
  if (!isThere) response.writeHead(404).end()
}

if (import.meta.main) {
  const [path = 'warm-cache', port = 8080, limitMebibytes = 64, capacityGibibytes = 4] = process.argv.slice(2)
  const limitBytes = Number(limitMebibytes) * 2 ** 20
  const capacityBytes = Number(capacityGibibytes) * 2 ** 30
  await using cache = await WarmCache.open({ path: String(path), limitBytes, capacityBytes })
  await using server = warmServer(cache)
  server.listen(Number(port), () => console.log('listening on port', (server.address() as AddressInfo).port))
  await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve))
}
