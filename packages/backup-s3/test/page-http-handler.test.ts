/** The request handler made for page traffic, against servers that do what HTTP allows, and what it does not. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer as createSecureServer } from 'node:https'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { replaceHost } from '@spillway/core'
import { startServer } from '@spillway/test-s3-server'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { ResponseParser } from '../src/http/response-parser.ts'
import { type ResponseHead, type ResponseSink, responseSink } from '../src/http/response-sink.ts'
import { type ClientRequestHandler, pageHttpHandler } from '../src/index.ts'
import { randomPages } from './stores.ts'

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup()
})

/** A server that sends what the test tells it, one answer per request. */
async function serve(answer: (socket: Socket, request: number, head: string) => void): Promise<number> {
  let requests = 0
  const sockets = new Set<Socket>()
  const server: Server = createServer((socket) => {
    sockets.add(socket)
    let head = ''
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      head += chunk.toString('latin1')
      if (!head.includes('\r\n\r\n')) return
      const whole = head
      head = ''
      answer(socket, ++requests, whole)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** Takes bytes into one memory, directly where it may. */
class MemorySink implements ResponseSink {
  readonly into: Uint8Array
  heads: ResponseHead[] = []
  position = 0
  direct = 0
  wanted = true

  constructor(bytes: number) {
    this.into = new Uint8Array(bytes)
  }
  get isComplete(): boolean {
    return this.position === this.into.length
  }
  begin({ status, contentLength, contentRange }: ResponseHead): boolean {
    this.heads.push({ status, contentLength, contentRange })
    return this.wanted
  }
  memory(): Uint8Array | undefined {
    return this.into.length - this.position < 1000 ? undefined : this.into.subarray(this.position)
  }
  filled(bytes: number): void {
    this.position += bytes
    this.direct += bytes
  }
  write(bytes: Buffer, from: number, end: number): void {
    this.into.set(bytes.subarray(from, end), this.position)
    this.position += end - from
  }
}

type Response = { statusCode: number; headers: Record<string, string>; body: AsyncIterable<Buffer> }
type Handle = (request: object, options: object) => Promise<{ response: Response }>

function handlerFor(options = {}): ClientRequestHandler {
  const handler = pageHttpHandler(options)
  cleanups.push(() => handler.destroy?.())
  return handler
}

async function get(handler: ClientRequestHandler, port: number, sink: ResponseSink, options: object = {}) {
  const request = {
    method: 'GET',
    protocol: 'http:',
    hostname: '127.0.0.1',
    port,
    path: '/bucket/key with%20space',
    query: { 'x-id': 'GetObject', b: ["it's", 'two'], a: '' },
    headers: { host: `127.0.0.1:${port}`, range: 'bytes=0-' },
  }
  const handle = handler.handle.bind(handler) as unknown as Handle
  const { response } = await handle(request, { [responseSink]: sink, ...options })
  const chunks: Buffer[] = []
  for await (const chunk of response.body) chunks.push(chunk)
  return { ...response, text: Buffer.concat(chunks).toString() }
}

const content = randomPages(64)
const ok = (extra = '') =>
  `HTTP/1.1 206 Partial Content\r\nContent-Length: ${content.length}\r\nETag: "e"\r\nContent-Range: bytes 0-${content.length - 1}/9\r\n${extra}\r\n`

describe('pageHttpHandler()', () => {
  it('reads a body into the sink’s own memory and keeps the connection', async () => {
    const ports = new Set<number | undefined>()
    const port = await serve((socket) => {
      ports.add(socket.remotePort)
      socket.write(ok('X-Amz-Checksum-Crc32: AAAAAA==\r\n'))
      socket.write(content)
    })
    const handler = handlerFor()
    for (let round = 0; round < 5; round++) {
      const sink = new MemorySink(content.length)
      const { statusCode, headers, text } = await get(handler, port, sink)
      expect(Buffer.from(sink.into).equals(content)).toBe(true)
      expect(statusCode).toBe(206)
      expect(headers['etag']).toBe('"e"')
      expect(headers['x-amz-checksum-crc32']).toBeUndefined()
      expect(text).toBe('')
      expect(sink.heads).toEqual([
        {
          status: 206,
          contentRange: `bytes 0-${content.length - 1}/9`,
          contentLength: content.length,
        },
      ])
      expect(sink.direct).toBeGreaterThan(0)
    }
    expect(ports.size).toBe(1)
  })

  it('sends the request as it was signed', async () => {
    let seen = ''
    const port = await serve((socket, _, head) => {
      seen = head
      socket.write(ok())
      socket.write(content)
    })
    await get(handlerFor(), port, new MemorySink(content.length))
    expect(seen.split('\r\n')[0]).toBe(
      'GET /bucket/key with%20space?a&b=it%27s&b=two&x-id=GetObject HTTP/1.1',
    )
    expect(seen).toContain('\r\nrange: bytes=0-\r\n')
  })

  it('understands bodies in chunks, and bodies that end with the connection, wherever packets are cut', async () => {
    let piece = 1
    const send = async (socket: Socket, bytes: Buffer) => {
      for (let at = 0; at < bytes.length; at += piece) {
        socket.write(bytes.subarray(at, at + piece))
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    const small = content.subarray(0, 3000)
    const head = 'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2999/9\r\n'
    const chunked = Buffer.concat([
      Buffer.from(`HTTP/1.1 100 Continue\r\n\r\n${head}Transfer-Encoding: chunked\r\n\r\n3e8;x=y\r\n`),
      small.subarray(0, 1000),
      Buffer.from('\r\n7D0\r\n'),
      small.subarray(1000),
      Buffer.from('\r\n0\r\nTrailer: x\r\n\r\n'),
    ])
    const closing = Buffer.concat([Buffer.from(`${head}\r\n`), small])
    const port = await serve(async (socket, request) => {
      await send(socket, request % 2 === 1 ? chunked : closing)
      if (request % 2 === 0) socket.end()
    })
    const handler = handlerFor()
    for (piece of [7, 64, 1460, 100_000]) {
      for (let round = 0; round < 2; round++) {
        const sink = new MemorySink(3000)
        await get(handler, port, sink)
        expect(Buffer.from(sink.into).equals(small)).toBe(true)
      }
    }
  })

  it('hands a refusal and a redirect to the SDK with their body', async () => {
    const port = await serve((socket, request) => {
      const body = '<Error><Code>SlowDown</Code></Error>'
      if (request === 1) socket.write(`HTTP/1.1 503 Busy\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
      else if (request === 2) {
        socket.write('HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-1\r\ntransfer-encoding: chunked\r\n\r\n')
        socket.write(`${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`)
      } else socket.write('HTTP/1.1 304 Not Modified\r\ncontent-length: 55\r\n\r\n')
    })
    const handler = handlerFor()
    const sink = new MemorySink(10)
    expect(await get(handler, port, sink)).toMatchObject({
      statusCode: 503,
      text: expect.stringContaining('SlowDown'),
    })
    const moved = await get(handler, port, sink)
    expect(moved).toMatchObject({ statusCode: 301, text: expect.stringContaining('SlowDown') })
    expect(moved.headers['x-amz-bucket-region']).toBe('eu-1')
    expect(await get(handler, port, sink)).toMatchObject({ statusCode: 304, text: '' })
    expect(sink.heads).toEqual([])
  })

  it('sends again on a new connection when the kept one was closed meanwhile', async () => {
    const port = await serve((socket, request) => {
      if (request === 2) return socket.destroy()
      socket.write(ok())
      socket.write(content)
    })
    const handler = handlerFor()
    for (let round = 0; round < 2; round++) {
      const sink = new MemorySink(content.length)
      await get(handler, port, sink)
      expect(Buffer.from(sink.into).equals(content)).toBe(true)
    }
  })

  it.each([
    ['idle for a minute', [59_000, 61_000]],
    ['ten minutes old, however busy', [...Array<number>(10).fill(59_000), 11_000]],
  ])('does not use a kept connection again that is %s', async (_, pausesMs) => {
    let aheadMs = 0
    replaceHost({ nowMs: () => performance.now() + aheadMs })
    cleanups.push(() => replaceHost())
    const ports: (number | undefined)[] = []
    const port = await serve((socket) => {
      ports.push(socket.remotePort)
      socket.write(ok())
      socket.write(content)
    })
    const handler = handlerFor()
    for (const pauseMs of [0, ...pausesMs]) {
      aheadMs += pauseMs
      const sink = new MemorySink(content.length)
      await get(handler, port, sink)
      expect(Buffer.from(sink.into).equals(content)).toBe(true)
    }
    expect(new Set(ports.slice(0, -1)).size).toBe(1)
    expect(ports.at(-1)).not.toBe(ports[0])
  })

  it('rejects a body that breaks off, one that is longer than it said, and what is no HTTP', async () => {
    const port = await serve((socket, request) => {
      if (request === 1) {
        socket.write(ok())
        socket.end(content.subarray(0, 5000))
      } else if (request === 2) socket.write('SSH-2.0-OpenSSH_9.2\r\n\r\n')
      else if (request === 3) socket.write('HTTP/1.1 206 OK\r\ncontent-length: many\r\n\r\n')
      else if (request === 4) socket.write('HTTP/1.1 206 OK\r\ntransfer-encoding: gzip\r\n\r\n')
      else socket.write(`HTTP/1.1 206 OK\r\nx: ${'y'.repeat(70_000)}\r\n`)
    })
    const handler = handlerFor()
    const sink = () => new MemorySink(content.length)
    await expect(get(handler, port, sink())).rejects.toMatchObject({ code: 'ECONNRESET' })
    for (let round = 0; round < 4; round++) {
      await expect(get(handler, port, sink())).rejects.toMatchObject({ code: 'EIO', retryable: true })
    }
  })

  it('ends with ETIMEDOUT when the body falls silent, and when no connection comes about', async () => {
    const port = await serve((socket) => {
      socket.write(ok())
      socket.write(content.subarray(0, 5000))
    })
    const sink = new MemorySink(content.length)
    await expect(get(handlerFor(), port, sink, { bodyTimeoutMs: 50 })).rejects.toMatchObject({
      code: 'ETIMEDOUT',
    })
    // TLS on a server that never says anything never becomes a connection.
    const silent = await serve(() => {})
    const handler = handlerFor()
    const request = {
      method: 'GET',
      protocol: 'https:',
      hostname: '127.0.0.1',
      port: silent,
      path: '/',
      headers: {},
    }
    const handle = handler.handle.bind(handler) as unknown as Handle
    const call = handle(request, { [responseSink]: sink, connectTimeoutMs: 50 })
    await expect(call).rejects.toMatchObject({ code: 'ETIMEDOUT' })
  })

  it('lets the event loop turn long before all is read, however many bodies are ready', async () => {
    const body = randomPages(1024)
    const port = await serve((socket) => {
      socket.write(`HTTP/1.1 206 Partial Content\r\nContent-Length: ${body.length}\r\n\r\n`)
      socket.write(body)
    })
    const handler = handlerFor()
    let bytesInTurn = 0
    let mostInTurn = 0
    let isOver = false
    const turn = () => {
      mostInTurn = Math.max(mostInTurn, bytesInTurn)
      bytesInTurn = 0
      if (!isOver) setImmediate(turn)
    }
    class CountingSink extends MemorySink {
      override memory(): Uint8Array | undefined {
        return super.memory()?.subarray(0, 128 * 1024)
      }
      override filled(bytes: number): void {
        bytesInTurn += bytes
        super.filled(bytes)
      }
    }
    turn()
    const read = async () => {
      const sink = new CountingSink(body.length)
      await get(handler, port, sink)
      expect(Buffer.from(sink.into).equals(body)).toBe(true)
    }
    await Promise.all(Array.from({ length: 8 }, read))
    isOver = true
    // What half a millisecond moves depends on the machine; each connection reads once more after that at the most.
    expect(mostInTurn).toBeGreaterThan(0)
    expect(mostInTurn).toBeLessThanOrEqual(0.75 * body.length)
  })

  it('an abort ends at once, and the memory is left alone from then on', async () => {
    let more: (() => void) | undefined
    const port = await serve((socket) => {
      socket.write(ok())
      socket.write(content.subarray(0, 20_000))
      more = () => socket.write(content.subarray(20_000))
    })
    const controller = new AbortController()
    const sink = new MemorySink(content.length)
    const call = get(handlerFor(), port, sink, { abortSignal: controller.signal })
    while (sink.position < 20_000) await new Promise((resolve) => setTimeout(resolve, 1))
    controller.abort(new Error('enough'))
    await expect(call).rejects.toThrow('enough')
    sink.into.fill(0)
    more!()
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(sink.into.every((byte) => byte === 0)).toBe(true)
  })

  it('gives everything else to the SDK’s own handler, and serves as the handler of a client', async () => {
    await using server = await startServer()
    const { accessKeyId, secretAccessKey } = server.credentials
    const client = new S3Client({
      endpoint: server.endpoint,
      region: server.region,
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey },
      requestHandler: pageHttpHandler(),
    })
    await client.send(new PutObjectCommand({ Bucket: server.bucket, Key: 'k', Body: 'hello' }))
    const answer = await client.send(new GetObjectCommand({ Bucket: server.bucket, Key: 'k' }))
    expect(await answer.Body!.transformToString()).toBe('hello')
    client.destroy()
  })

  it('speaks TLS, and refuses a certificate that nobody vouches for', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'spillway-tls-'))
    cleanups.push(() => rmSync(directory, { recursive: true }))
    const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
    const make = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-keyout', key, '-out', cert]
    execFileSync('openssl', [...make, ...subject], { stdio: 'ignore' })
    const server = createSecureServer({ key: readFileSync(key), cert: readFileSync(cert) }, (_, response) => {
      response
        .writeHead(206, { 'content-length': content.length, 'content-range': 'bytes 0-1/9' })
        .end(content)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    cleanups.push(() => {
      server.closeAllConnections()
      server.close()
    })
    const { port } = server.address() as AddressInfo
    const request = { method: 'GET', protocol: 'https:', hostname: '127.0.0.1', port, path: '/', headers: {} }
    const trusting = handlerFor({ tls: { ca: readFileSync(cert) } })
    const handle = trusting.handle.bind(trusting) as unknown as Handle
    for (let round = 0; round < 3; round++) {
      const sink = new MemorySink(content.length)
      await handle(request, { [responseSink]: sink })
      expect(Buffer.from(sink.into).equals(content)).toBe(true)
    }
    const wary = handlerFor()
    const refused = (wary.handle.bind(wary) as unknown as Handle)(request, {
      [responseSink]: new MemorySink(9),
    })
    await expect(refused).rejects.toThrow(/self.signed/i)
  })

  it('refuses headers that would not arrive as they are', async () => {
    let requests = 0
    const port = await serve(() => requests++)
    const handler = handlerFor()
    const handle = handler.handle.bind(handler) as unknown as Handle
    for (const value of ['a\r\nb: c', 'a\nb', 'a\u010a', '\u20ac', '\0']) {
      for (const headers of [
        { host: 'h', 'x-amz-meta-note': value },
        { host: 'h', [value]: 'x' },
      ]) {
        const request = { method: 'GET', protocol: 'http:', hostname: '127.0.0.1', port, path: '/', headers }
        const call = handle(request, { [responseSink]: new MemorySink(9) })
        await expect(call).rejects.toThrow(`the header ${JSON.stringify(Object.keys(headers)[1])} `)
      }
    }
    expect(requests).toBe(0)
  })

  it('refuses unknown options', () => {
    expect(() => pageHttpHandler({ timeout: 5 } as never)).toThrow('no option "timeout"')
  })
})

describe('ResponseParser', () => {
  it('finds the same bodies however the stream is cut', () => {
    const bodies = [content.subarray(0, 3), content.subarray(10, 500), content.subarray(0, 0)]
    const stream = Buffer.concat([
      Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n'),
      bodies[0],
      Buffer.from(
        'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 206 P\r\ntransfer-encoding: Chunked\r\n\r\n1ea\r\n',
      ),
      bodies[1],
      Buffer.from('\r\n0\r\n\r\n'),
      Buffer.from('HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n'),
    ])
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 60 }), (sizes) => {
        const found: { status: number; body: Buffer }[] = []
        let parser: ResponseParser | undefined
        let current: { status: number; body: Buffer } = { status: 0, body: Buffer.alloc(0) }
        const events = {
          onHead: ({ status }: { status: number }) => {
            current = { status, body: Buffer.alloc(0) }
          },
          onBody: (bytes: Buffer, from: number, end: number) => {
            current.body = Buffer.concat([current.body, bytes.subarray(from, end)])
          },
          onDone: () => {
            found.push(current)
            parser = undefined
          },
        }
        let at = 0
        for (let index = 0; at < stream.length; index++) {
          let left = stream.subarray(at, at + sizes[index % sizes.length])
          at += left.length
          // One response at a time, byte by byte at the seams: the connection never sends ahead of the answer.
          while (left.length > 0) {
            parser ??= new ResponseParser(events)
            parser.push(left.subarray(0, 1))
            left = left.subarray(1)
          }
        }
        expect(found.map(({ status }) => status)).toEqual([200, 206, 404])
        for (const [index, { body }] of found.entries()) expect(body.equals(bodies[index])).toBe(true)
      }),
      { numRuns: 20 },
    )
  })

  it('refuses bytes that nobody asked for', () => {
    const parser = new ResponseParser({ onHead() {}, onBody() {}, onDone() {} })
    expect(() => parser.push(Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab'))).toThrow(
      'after the end',
    )
  })
})
