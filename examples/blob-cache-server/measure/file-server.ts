/** What one would take instead: the same requests and tags, by streams of node:fs to and from a file for each blob. Port and directory. */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'

const [port, directory] = process.argv.slice(2)

async function put(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const hash = createHash('sha256')
  request.on('data', (bytes) => hash.update(bytes))
  await pipeline(request, createWriteStream(path))
  response.writeHead(201, { ETag: `"${hash.digest('base64url')}"` }).end()
}

async function get(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { size } = await stat(path)
  const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range!)!.map(Number)
  const headers = { 'Content-Range': `bytes ${start}-${end}/${size}`, 'Content-Length': end + 1 - start }
  response.writeHead(206, headers)
  await pipeline(createReadStream(path, { start, end, highWaterMark: 256 * 1024 }), response)
}

const server = createServer((request, response) => {
  const path = join(directory, request.url!.slice(1))
  const answering = request.method === 'PUT' ? put(path, request, response) : get(path, request, response)
  answering.catch((failure) => response.destroy(failure))
})
server.listen(Number(port), () => console.log('listening on', server.address()))
process.once('SIGTERM', () => server.close())
