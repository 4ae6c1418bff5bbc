import { createServer, type Server } from 'node:http'
import { openFileBackup } from '@spillway/backup-file'
import { Pool } from '@spillway/pool'
import { type Place, TileCache } from './tile-cache.ts'

/** `GET /z/x/y`. The caller lets it listen, and closes it. */
export function tileServer(cache: TileCache): Server {
  return createServer((request, response) => {
    const [, z, x, y] = /^\/(\d{1,2})\/(\d{1,8})\/(\d{1,8})$/.exec(request.url!)?.map(Number) ?? []
    if (!(Math.max(x, y) < 2 ** z)) return void response.writeHead(404).end()
    cache.get({ z, x, y }).then(
      (bytes) => response.setHeader('Content-Type', 'image/svg+xml').end(bytes),
      (failure) => response.writeHead(500).end(`${failure.message}\n`),
    )
  })
}

/** Stands for what takes long: a tile that says where it is. */
async function render({ z, x, y }: Place): Promise<Uint8Array> {
  const hue = (x * 47 + y * 89) % 360
  return Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 256 256">
  <rect width="256" height="256" fill="hsl(${hue} 60% 80%)"/><text x="64" y="136">${z}/${x}/${y}</text></svg>\n`)
}

if (import.meta.main) {
  const [port = 8080, limitMebibytes = 64, capacityGibibytes = 4, directory = '.'] = process.argv.slice(2)
  await using backup = await openFileBackup({ directory: String(directory) })
  // Tiles are small: one of 20 KB is a chunk of 16 KiB and one of 4.
  await using pool = new Pool({ limitBytes: Number(limitMebibytes) * 2 ** 20, backup, maxOrder: 4 })
  const cache = new TileCache({ pool, capacityBytes: Number(capacityGibibytes) * 2 ** 30, render })
  await using server = tileServer(cache)
  server.listen(Number(port), () => console.log('listening on', server.address()))
  await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve))
}
