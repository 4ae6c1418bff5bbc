/** Uploads from the callers' own memory: what is on the wire, and who may touch the memory when. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer as createSecureServer } from 'node:https'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BackupResult } from '@spillway/core'
import { faults, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Connection } from '../src/http/connection.ts'
import { Route } from '../src/http/route.ts'
import { pieceCarrier, UploadBody } from '../src/http/upload-body.ts'
import { pageHttpHandler, type S3BackupOptions } from '../src/index.ts'
import { delay } from '../src/service/waiting.ts'
import { openOn, pageSizeBytes, randomPages, read } from './stores.ts'

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup()
})

const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 2))
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await turn()
}

interface Received {
  readonly socket: Socket
  head: string
  body: Buffer
}

/** A server that shows what came, one request a connection unless it is told to forget it, and answers as the test says. */
async function listen(onData: (received: Received) => void, paused = false) {
  const connections: Received[] = []
  const server = createServer((socket) => {
    const received: Received = { socket, head: '', body: Buffer.alloc(0) }
    connections.push(received)
    socket.on('error', () => {})
    const take = (chunk: Buffer) => {
      if (received.head === '') {
        const end = chunk.indexOf('\r\n\r\n')
        received.head = chunk.toString('latin1', 0, end)
        received.body = Buffer.concat([received.body, chunk.subarray(end + 4)])
      } else received.body = Buffer.concat([received.body, chunk])
      onData(received)
    }
    socket.on('data', take)
    if (paused) socket.pause()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    for (const { socket } of connections) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, connections }
}

type Answer = {
  response: { statusCode: number; headers: Record<string, string>; body: AsyncIterable<Buffer> }
}
type Handle = (request: object, options: object) => Promise<Answer>

function handlerFor(options = {}): Handle {
  const handler = pageHttpHandler(options)
  cleanups.push(() => handler.destroy?.())
  return handler.handle.bind(handler) as unknown as Handle
}

function upload(
  port: number,
  pieces: Uint8Array[],
  headers: Record<string, string> = {},
  protocol = 'http:',
) {
  const bytes = pieces.reduce((sum, piece) => sum + piece.byteLength, 0)
  return {
    method: 'PUT',
    protocol,
    hostname: '127.0.0.1',
    port,
    path: '/bucket/key',
    query: { 'x-id': 'PutObject' },
    headers: { host: 'h', 'content-length': String(bytes), ...headers },
    body: pieceCarrier(pieces),
  }
}

const expecting = { Expect: '100-continue' }
const pieces = [randomPages(150), randomPages(1), randomPages(3), randomPages(260)]
const content = Buffer.concat(pieces)
const done = 'HTTP/1.1 200 OK\r\netag: "e"\r\ncontent-length: 0\r\n\r\n'
const busy = 'HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy'

describe('pageHttpHandler() sends', () => {
  it('the head as it was signed and the pieces in their order, on a connection that is kept', async () => {
    const { port, connections } = await listen((received) => {
      if (received.body.length < content.length) return
      expect(received.head.split('\r\n')[0]).toBe('PUT /bucket/key?x-id=PutObject HTTP/1.1')
      expect(received.head).toContain(`\r\ncontent-length: ${content.length}`)
      expect(received.body.equals(content)).toBe(true)
      Object.assign(received, { head: '', body: Buffer.alloc(0) })
      received.socket.write(done)
    })
    const handle = handlerFor()
    for (let round = 0; round < 3; round++) {
      const { response } = await handle(upload(port, pieces), {})
      expect(response).toMatchObject({ statusCode: 200, headers: { etag: '"e"' } })
    }
    expect(connections).toHaveLength(1)
  })

  it('the body at once, but waits for 100 Continue after a refusal until one was taken', async () => {
    const asked: boolean[] = []
    const bodyBefore: number[] = []
    const { port } = await listen((received) => {
      const waits = received.head.includes('Expect: 100-continue')
      if (waits && received.body.length === 0) {
        bodyBefore.push(received.body.length)
        received.socket.write('HTTP/1.1 100 Continue\r\n\r\n')
        return
      }
      if (received.body.length < content.length) return
      asked.push(waits)
      Object.assign(received, { head: '', body: Buffer.alloc(0) })
      received.socket.write(asked.length <= 2 ? busy : done)
    })
    const handle = handlerFor()
    const statuses: number[] = []
    for (let round = 0; round < 5; round++) {
      statuses.push((await handle(upload(port, pieces, expecting), {})).response.statusCode)
    }
    expect(statuses).toEqual([503, 503, 200, 200, 200])
    expect(asked).toEqual([false, true, true, false, false])
    expect(bodyBefore).toEqual([0, 0])
  })

  it('the body to a service that never says 100 Continue', async () => {
    let requests = 0
    const { port } = await listen((received) => {
      if (received.body.length < content.length) return
      requests++
      expect(received.body.equals(content)).toBe(true)
      Object.assign(received, { head: '', body: Buffer.alloc(0) })
      received.socket.write(requests === 1 ? busy : done)
    })
    const handle = handlerFor()
    expect((await handle(upload(port, pieces, expecting), {})).response.statusCode).toBe(503)
    expect((await handle(upload(port, pieces, expecting), {})).response.statusCode).toBe(200)
  })

  it('no more of the body after a refusal came, and uses the connection no more', async () => {
    let refused = false
    const { port, connections } = await listen((received) => {
      if (refused) return
      refused = true
      received.socket.write(busy)
      received.socket.pause()
    })
    const large = [randomPages(8192)]
    const handle = handlerFor()
    const { response } = await handle(upload(port, large), {})
    expect(response.statusCode).toBe(503)
    const [{ socket }] = connections
    socket.resume()
    await new Promise((resolve) => socket.once('close', resolve))
    expect(connections[0].body.length).toBeLessThan(large[0].length)
  })

  it('everything again on a new connection when the kept one was closed meanwhile', async () => {
    let requests = 0
    const { port, connections } = await listen((received) => {
      if (requests === 1) {
        requests++
        received.socket.destroy()
      }
      if (received.body.length < content.length) return
      requests++
      Object.assign(received, { head: '', body: Buffer.alloc(0) })
      received.socket.write(done)
    })
    const handle = handlerFor()
    for (let round = 0; round < 2; round++) {
      expect((await handle(upload(port, pieces), {})).response.statusCode).toBe(200)
    }
    expect(connections).toHaveLength(2)
  })

  it('nothing that was written into the memory after an abort', async () => {
    const { port, connections } = await listen(() => {}, true)
    const memory = Buffer.alloc(64 * 2 ** 20, 1)
    const controller = new AbortController()
    const call = handlerFor()(upload(port, [memory]), { abortSignal: controller.signal })
    await until(() => connections.length === 1)
    await turn()
    controller.abort(new Error('enough'))
    memory.fill(2)
    await expect(call).rejects.toThrow('enough')
    const [{ socket }] = connections
    socket.resume()
    await new Promise((resolve) => socket.once('close', resolve))
    expect(connections[0].body.length).toBeGreaterThan(0)
    expect(connections[0].body.includes(2)).toBe(false)
  })

  it('an error, and not too little, when the memory is gone', async () => {
    const { port } = await listen(() => {})
    const gone = new Uint8Array(8 * pageSizeBytes)
    const request = upload(port, [randomPages(2), gone])
    structuredClone(gone, { transfer: [gone.buffer] })
    await expect(handlerFor()(request, {})).rejects.toThrow(TypeError)
    const whole = new Uint8Array(8 * pageSizeBytes)
    const body = UploadBody.of(whole)
    structuredClone(whole, { transfer: [whole.buffer] })
    await expect(body.attempt(undefined, async () => {})).rejects.toThrow(TypeError)
  })

  it('an error when the memory goes while it is sent, and leaves those alone who send beside it', async () => {
    const { port, connections } = await listen((received) => {
      if (received.body.length === content.length) received.socket.write(done)
    }, true)
    const handle = handlerFor()
    const gone = new Uint8Array(64 * 2 ** 20)
    const call = handle(upload(port, [gone]), {})
    call.catch(() => {})
    await until(() => connections.length === 1)
    await turn()
    const beside = handle(upload(port, pieces), {})
    await until(() => connections.length === 2)
    // Held, since the system is still reading from it.
    const elsewhere = structuredClone(gone.buffer, { transfer: [gone.buffer] })
    for (const { socket } of connections) socket.resume()
    await expect(call).rejects.toThrow(TypeError)
    expect((await beside).response.statusCode).toBe(200)
    expect(elsewhere.byteLength).toBe(64 * 2 ** 20)
  })

  it('nothing when the memory went before, and closes the connection, also one that was kept', async () => {
    const { port, connections } = await listen((received) => {
      if (received.body.length < content.length) return
      Object.assign(received, { head: '', body: Buffer.alloc(0) })
      received.socket.write(done)
    })
    const handle = handlerFor()
    for (const isKept of [false, true]) {
      if (isKept) await handle(upload(port, pieces), {})
      const open = connections.length - (isKept ? 1 : 0)
      const gone = new Uint8Array(pageSizeBytes)
      const request = upload(port, [gone])
      structuredClone(gone.buffer, { transfer: [gone.buffer] })
      await expect(handle(request, {})).rejects.toThrow(TypeError)
      await until(() => connections.length > open)
      expect(connections).toHaveLength(open + 1)
      await until(() => connections[open].socket.closed)
      expect(connections[open].head).toBe('')
    }
  })

  it('everything twice at the most, however many kept connections were closed meanwhile', async () => {
    let requests = 0
    let isAway = false
    const { port, connections } = await listen((received) => {
      if (received.body.length < content.length && !isAway) return
      requests++
      if (isAway) return received.socket.destroy()
      Object.assign(received, { head: '', body: Buffer.alloc(0) })
      // All of them at once, so that each has a connection of its own.
      if (requests === 5) for (const { socket } of connections) socket.write(done)
    })
    const handle = handlerFor()
    await Promise.all(Array.from({ length: 5 }, () => handle(upload(port, pieces), {})))
    expect(connections).toHaveLength(5)
    isAway = true
    await expect(handle(upload(port, pieces), {})).rejects.toThrow()
    expect(requests - 5).toBe(2)
  })

  it('everything on a new connection when the kept one is closed before the request goes out', async () => {
    const { port, connections } = await listen((received) => {
      if (received.body.length < content.length) return
      Object.assign(received, { head: '', body: Buffer.alloc(0) })
      received.socket.write(done)
    })
    const handler = pageHttpHandler()
    cleanups.push(() => handler.destroy?.())
    const handle = handler.handle.bind(handler) as unknown as Handle
    await handle(upload(port, pieces), {})
    const call = handle(upload(port, pieces), {})
    handler.destroy?.()
    expect((await call).response.statusCode).toBe(200)
    expect(connections).toHaveLength(2)
    const origin = { secure: false, host: '127.0.0.1', port }
    const closed = await Connection.open(new Route({}, false), origin, 3_000, undefined)
    closed.destroy()
    const limits = { silenceMs: 1, minBytesPerSecond: 1 }
    const request = { head: '', body: [], waitsForContinue: false, sink: undefined, ...limits }
    const ends: unknown[] = []
    closed.start(request, (response, error) => ends.push(response, error))
    expect(ends).toMatchObject([undefined, { code: 'ECONNRESET' }])
  })

  it('again what was interrupted, whatever the attempt makes of the interruption', async () => {
    const body = UploadBody.of(randomPages(1))
    let attempts = 0
    // A wait for the rate says EINTR.
    const sent = body.attempt(undefined, async (signal) => {
      if (++attempts === 1) await delay(60_000, signal)
    })
    body.copyPieces(0, 1)
    await sent
    expect(attempts).toBe(2)
    const controller = new AbortController()
    const aborted = body.attempt(controller.signal, (signal) => delay(60_000, signal))
    body.copyPieces(0, 1)
    controller.abort(new Error('enough'))
    await expect(aborted).rejects.toMatchObject({ code: 'EINTR', cause: { message: 'enough' } })
  })

  it('over TLS', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'spillway-tls-'))
    cleanups.push(() => rmSync(directory, { recursive: true }))
    const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
    const make = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-keyout', key, '-out', cert]
    execFileSync('openssl', [...make, ...subject], { stdio: 'ignore' })
    const server = createSecureServer(
      { key: readFileSync(key), cert: readFileSync(cert) },
      async (request, response) => {
        const chunks: Buffer[] = []
        for await (const chunk of request) chunks.push(chunk)
        response.writeHead(Buffer.concat(chunks).equals(content) ? 200 : 400).end()
      },
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    cleanups.push(() => {
      server.closeAllConnections()
      server.close()
    })
    const handle = handlerFor({ tls: { ca: readFileSync(cert) } })
    for (let round = 0; round < 2; round++) {
      const request = upload((server.address() as AddressInfo).port, pieces, {}, 'https:')
      expect((await handle(request, {})).response.statusCode).toBe(200)
    }
  })
})

describe('a backup with pageHttpHandler()', () => {
  const segment = '/s-'
  let target: S3Target
  beforeEach(async () => {
    target = await s3Target({ embedded: true, reuseProcess: true })
  })
  afterEach(() => target.close())
  const open = (options: Partial<S3BackupOptions> = {}) => {
    const client = target.client({ requestHandler: pageHttpHandler() })
    return openOn(target, { client, deleteDelayMs: 0, ...options })
  }
  const puts = async () => (await target.server!.log('PutObject')).filter(({ key }) => key?.includes(segment))

  it('stores pages from memory of every kind, in any cut', async () => {
    const backup = await open()
    const resizable = new Uint8Array(new ArrayBuffer(100 * pageSizeBytes, { maxByteLength: 2 ** 22 }))
    const shared = new Uint8Array(new SharedArrayBuffer(100 * pageSizeBytes))
    const within = new Uint8Array(new ArrayBuffer(2 ** 20), 3 * pageSizeBytes, 99 * pageSizeBytes)
    const singles = Array.from({ length: 1500 }, () => randomPages(1))
    const spans = [resizable, ...singles, shared, within]
    for (const span of [resizable, shared, within]) span.set(randomPages(span.length / pageSizeBytes))
    const { handles, error } = await backup.backupPages(spans)
    expect(error).toBeUndefined()
    expect((await read(backup, handles)).equals(Buffer.concat(spans))).toBe(true)
    expect(await puts()).toHaveLength(1)
    await backup.close()
  })

  it('uses few connections, and no round trip for leave to send', async () => {
    const backup = await open()
    const whole = randomPages(backup.capabilities.preferredBatchPages)
    for (let round = 0; round < 4; round++) {
      const { error } = await backup.backupPages([whole])
      expect(error).toBeUndefined()
    }
    const requests = await puts()
    expect(requests).toHaveLength(4)
    for (const { headers } of requests) expect(headers['expect']).toBeUndefined()
    await backup.close()
  })

  for (const when of ['waits for company', 'is being sent'] as const) {
    it(`T6: an abort while the segment ${when} gives the memory back, and the others keep their pages`, async () => {
      if (when === 'is being sent') {
        await target.server!.faults.once('PutObject', faults.hung, { keyIncludes: segment })
      }
      const backup = await open({ lingerMs: when === 'is being sent' ? 20 : 300 })
      const controller = new AbortController()
      const contents = [randomPages(3), randomPages(7), randomPages(5)]
      const memories = contents.map((pages) => Buffer.from(pages))
      const calls: Promise<BackupResult>[] = memories.map((memory, index) =>
        backup.backupPages([memory], index === 1 ? { signal: controller.signal } : {}),
      )
      if (when === 'is being sent') await until(async () => (await puts()).length === 1)
      else await new Promise((resolve) => setTimeout(resolve, 30))
      controller.abort()
      const aborted = await calls[1]
      memories[1].fill(0xee)
      expect(aborted).toMatchObject({ handles: [], error: { code: 'EINTR' } })
      for (const index of [0, 2]) {
        const { handles, error } = await calls[index]
        expect(error).toBeUndefined()
        expect((await read(backup, handles)).equals(contents[index])).toBe(true)
      }
      expect(backup.stats().livePages).toBe(8)
      // The interrupted one, and the one with the copy.
      expect(await puts()).toHaveLength(when === 'is being sent' ? 2 : 1)
      await backup.close()
    })
  }

  it('T6: an abort while the segment waits for its turn at maxRequestsPerSecond leaves the others theirs', async () => {
    const backup = await open({ maxRequestsPerSecond: 10, lingerMs: 1 })
    const controller = new AbortController()
    const kept = randomPages(4)
    const aborted = backup.backupPages([randomPages(2)], { signal: controller.signal })
    const call = backup.backupPages([kept])
    // The wait is about 100 ms. An abort beside it would have to leave them theirs as well.
    await new Promise((resolve) => setTimeout(resolve, 40))
    controller.abort()
    expect((await aborted).error).toMatchObject({ code: 'EINTR' })
    const { handles, error } = await call
    expect(error).toBeUndefined()
    expect((await read(backup, handles)).equals(kept)).toBe(true)
    await backup.close()
  })

  it('an upload that was interrupted after it had been stored is not stored twice', async () => {
    await target.server!.faults.once('PutObject', faults.silentAfterDone, { keyIncludes: segment })
    const backup = await open({ lingerMs: 20 })
    const controller = new AbortController()
    const kept = randomPages(4)
    const aborted = backup.backupPages([randomPages(2)], { signal: controller.signal })
    const call = backup.backupPages([kept])
    await until(async () => (await target.list()).some(({ key }) => key.includes(segment)))
    controller.abort()
    expect((await aborted).error).toMatchObject({ code: 'EINTR' })
    const { handles, error } = await call
    expect(error).toBeUndefined()
    expect((await read(backup, handles)).equals(kept)).toBe(true)
    expect((await puts()).map(({ status }) => status).at(-1)).toBe(412)
    await backup.close()
  })

  it('lets the SDK compute the sums that it is told to', async () => {
    const backup = await open({ objectSettings: { ChecksumAlgorithm: 'SHA256' } })
    const content = randomPages(600)
    const { handles, error } = await backup.backupPages([content])
    expect(error).toBeUndefined()
    const [put] = await puts()
    expect(put.headers['x-amz-checksum-sha256']).toMatch(/^[A-Za-z0-9+/]{43}=$/)
    expect((await read(backup, handles)).equals(content)).toBe(true)
    await backup.close()
  })

  it('stores pages and all that belongs to them without a SHA-256 when payloads are not to be signed', async () => {
    const options = { payloadSigning: 'unsigned', prefix: target.prefix(), retryForMs: 0 } as const
    const backup = await open(options)
    const content = randomPages(3)
    const { handles, error } = await backup.backupPages([content])
    expect(error).toBeUndefined()
    expect((await read(backup, handles)).equals(content)).toBe(true)
    await backup.close()
    const requests = await target.server!.log('PutObject')
    expect(requests.length).toBeGreaterThan(1)
    for (const { headers } of requests) expect(headers['x-amz-content-sha256']).toBe('UNSIGNED-PAYLOAD')
    expect(await target.list(options.prefix)).toEqual([])
  })

  it('an upload whose answer was lost is looked for although the budget is used up', async () => {
    const backup = await open()
    await target.server!.faults.once('PutObject', faults.lostAnswer, { keyIncludes: segment })
    backup.setBudget({ maxRequests: backup.stats().costs.requests + 1 })
    const content = randomPages(2)
    const { handles, error } = await backup.backupPages([content])
    expect(error).toBeUndefined()
    backup.setBudget({})
    expect((await read(backup, handles)).equals(content)).toBe(true)
    await backup.close()
  })

  it('nothing is left of an upload that the budget ended between two attempts', async () => {
    const prefix = target.prefix()
    const backup = await open({ prefix })
    await target.server!.faults.once('PutObject', faults.lostAnswer, { keyIncludes: segment })
    // Nobody can tell whether it was stored.
    await target.server!.faults.once('HeadObject', faults.accessDenied, { keyIncludes: segment })
    backup.setBudget({ maxRequests: backup.stats().costs.requests + 1 })
    const { handles, error } = await backup.backupPages([randomPages(2)])
    expect(handles).toEqual([])
    expect(error).toMatchObject({ code: 'EDQUOT', retryable: false, cause: { code: 'EIO' } })
    backup.setBudget({})
    await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })
})
