/** All requests take the same way to the service: through a proxy, an agent, with TLS options, over IPv6. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { Agent, createServer as createHttpServer, request as httpRequest, type Server } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { type AddressInfo, connect, createServer, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { S3ClientConfig } from '@aws-sdk/client-s3'
import { type PageHttpHandlerOptions, pageHttpHandler } from '@spillway/backup-s3'
import { type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { isExempt, parseProxy, proxyOfEnvironment } from '../src/http/proxy.ts'
import { requestHead } from '../src/http/request-head.ts'
import { openOn, pageSizeBytes, pick, randomPages, read } from './stores.ts'

let target: S3Target
let servicePort: number
const cleanups: (() => void)[] = []
beforeAll(async () => {
  target = await s3Target({ embedded: true })
  servicePort = Number(new URL(target.endpoint).port)
})
afterEach(() => {
  vi.unstubAllEnvs()
  for (const cleanup of cleanups.splice(0)) cleanup()
})
afterAll(() => target.close())

async function listening(
  server: Server | ReturnType<typeof createServer>,
  host = '127.0.0.1',
): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  cleanups.push(() => {
    server.close()
    if ('closeAllConnections' in server) server.closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

/** A proxy that knows every name as the service, and remembers what it was asked. */
async function startProxy(towards = servicePort) {
  const seen: string[] = []
  const proxy = createHttpServer((request, response) => {
    seen.push(`${request.method} ${request.url} ${request.headers['proxy-authorization'] ?? ''}`)
    const { pathname, search } = new URL(request.url!)
    const { 'proxy-authorization': _, ...headers } = request.headers
    const path = pathname + search
    const onward = httpRequest({ port: towards, host: '127.0.0.1', method: request.method, path, headers })
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(response)
    })
    onward.on('continue', () => response.writeContinue())
    request.pipe(onward)
  })
  const sockets = new Set<Socket>()
  proxy.on('connect', (request, client: Socket) => {
    seen.push(`CONNECT ${request.url} ${request.headers['proxy-authorization'] ?? ''}`)
    const service = connect(towards, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n')
      service.pipe(client).pipe(service)
    })
    for (const socket of [client, service]) sockets.add(socket.on('error', () => {}))
  })
  const port = await listening(proxy)
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy()
  })
  return { port, seen }
}

/** The service behind TLS, with a certificate that nobody knows. */
async function startTls() {
  const directory = mkdtempSync(join(tmpdir(), 'spillway-tls-'))
  cleanups.push(() => rmSync(directory, { recursive: true }))
  const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')]
  const names = 'subjectAltName=IP:127.0.0.1,DNS:s3.example.invalid'
  const make = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-keyout', key, '-out', cert]
  execFileSync('openssl', [...make, '-subj', '/CN=localhost', '-addext', names], { stdio: 'ignore' })
  const ca = readFileSync(cert)
  const server = createSecureServer({ key: readFileSync(key), cert: ca }, (request, response) => {
    const { method, headers, url: path } = request
    const onward = httpRequest({ port: servicePort, host: '127.0.0.1', method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(response)
    })
    onward.on('continue', () => response.writeContinue())
    request.pipe(onward)
  })
  return { port: await listening(server), ca }
}

/** Backs up, restores in one piece and page by page, lists and deletes. */
async function work(config: S3ClientConfig, options: PageHttpHandlerOptions): Promise<void> {
  const requestHandler = pageHttpHandler(options)
  const prefix = target.prefix()
  const client = target.client({ ...config, requestHandler })
  const backup = await openOn(target, { client, prefix, retryForMs: 2_000 })
  const content = randomPages(300)
  const { handles, error } = await backup.backupPages([content])
  expect(error).toBeUndefined()
  expect((await read(backup, handles)).equals(content)).toBe(true)
  const copy = await read(backup, pick(handles, [7, 200, 3]))
  expect(copy.subarray(0, pageSizeBytes).equals(content.subarray(7 * pageSizeBytes, 8 * pageSizeBytes))).toBe(
    true,
  )
  await backup.drop(handles)
  await backup.sweepOrphans()
  await backup.close()
  expect(await target.list(prefix)).toEqual([])
}

describe('all requests go', () => {
  it('through an http proxy that is named in the options, with its credentials', async () => {
    const { port, seen } = await startProxy()
    const before = (await target.server!.counters()).requests
    await work({ endpoint: 'http://s3.example.invalid:9' }, { proxy: `http://me:secret@127.0.0.1:${port}` })
    const asked = (await target.server!.counters()).requests - before
    // One is the listing of the test itself.
    expect(seen).toHaveLength(asked - 1)
    const login = `Basic ${Buffer.from('me:secret').toString('base64')}`
    for (const line of seen) {
      expect(line).toContain(' http://s3.example.invalid:9/')
      expect(line).toContain(login)
    }
  })

  it('through a tunnel of the proxy for https, with TLS options inside', async () => {
    const { port: towards, ca } = await startTls()
    const { port, seen } = await startProxy(towards)
    await work(
      { endpoint: 'https://s3.example.invalid' },
      { proxy: new URL(`http://127.0.0.1:${port}`), tls: { ca } },
    )
    expect(new Set(seen)).toEqual(new Set(['CONNECT s3.example.invalid:443 ']))
  })

  it('through the proxy that the environment names, unless NO_PROXY exempts the host', async () => {
    const { port, seen } = await startProxy()
    vi.stubEnv('HTTP_PROXY', `http://127.0.0.1:${port}`)
    vi.stubEnv('http_proxy', '')
    vi.stubEnv('NO_PROXY', '')
    vi.stubEnv('no_proxy', '')
    await work({ endpoint: 'http://s3.example.invalid' }, {})
    expect(seen.length).toBeGreaterThan(5)
    const asked = seen.length
    await work({ endpoint: target.endpoint }, { proxy: false })
    vi.stubEnv('NO_PROXY', '.example.com, 127.0.0.1')
    await work({ endpoint: target.endpoint }, {})
    expect(seen).toHaveLength(asked)
  })

  it('with the TLS options', async () => {
    const { port, ca } = await startTls()
    const endpoint = `https://127.0.0.1:${port}`
    await work({ endpoint }, { tls: { ca } })
    const refused = openOn(target, { client: target.client({ endpoint, requestHandler: pageHttpHandler() }) })
    await expect(refused).rejects.toMatchObject({ code: 'EACCES' })
    await expect(refused).rejects.toThrow('certificate')
  })

  it.each(['httpAgent', 'fallback'])('through an agent of the application: %s', async (way) => {
    let connections = 0
    const agent = Object.assign(new Agent({ keepAlive: true }), {
      createConnection: () => {
        connections++
        return connect(servicePort, '127.0.0.1')
      },
    }) as Agent
    cleanups.push(() => agent.destroy())
    const fallback = target.client({ requestHandler: { httpAgent: agent } }).config.requestHandler as never
    await work(
      { endpoint: 'http://s3.example.invalid' },
      way === 'fallback' ? { fallback } : { httpAgent: agent },
    )
    expect(connections).toBeGreaterThan(0)
  })

  it('straight to the service beside a fallback with plain agents', async () => {
    const fallback = target.client().config.requestHandler as never
    await work({}, { fallback })
  })

  it('over IPv6', async () => {
    const service = createServer((client) => {
      const onward = connect(servicePort, '127.0.0.1')
      for (const socket of [client, onward]) socket.on('error', () => {})
      client.pipe(onward).pipe(client)
    })
    const port = await listening(service, '::1')
    await work({ endpoint: `http://[::1]:${port}` }, {})
  })
})

describe('a proxy', () => {
  it('that refuses is told with its own words', async () => {
    const { port: towards } = await startTls()
    const proxy = createHttpServer()
    proxy.on('connect', (_, socket) => socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n'))
    const port = await listening(proxy)
    const requestHandler = pageHttpHandler({ proxy: `127.0.0.1:${port}` })
    const client = target.client({ endpoint: `https://127.0.0.1:${towards}`, requestHandler })
    await expect(openOn(target, { client })).rejects.toThrow('407 Proxy Authentication Required')
  })

  it('is an http or https address', () => {
    for (const proxy of ['socks5://127.0.0.1', 'http://', 'http://u:p@:80']) {
      expect(() => pageHttpHandler({ proxy })).toThrow(TypeError)
    }
    expect(() => pageHttpHandler({ proxy: 'ftp://user:secret@host' })).not.toThrow('secret')
    expect(parseProxy('https://u%40:p%3a@[::1]:8080')).toEqual({
      host: '::1',
      port: 8080,
      secure: true,
      authorization: `Basic ${Buffer.from('u@:p:').toString('base64')}`,
    })
  })

  it('is not used for what NO_PROXY names', () => {
    const is = (host: string, list: string, port = 443) => isExempt(host, port, list)
    expect(is('s3.example.com', '*')).toBe(true)
    expect(is('s3.example.com', 'other, example.com')).toBe(true)
    expect(is('s3.example.com', '.example.com')).toBe(true)
    expect(is('S3.EXAMPLE.com', 's3.Example.com:443')).toBe(true)
    expect(is('s3.example.com', 's3.example.com:80')).toBe(false)
    expect(is('mys3example.com', 'example.com')).toBe(false)
    expect(is('10.1.2.3', '10.0.0.0/8')).toBe(true)
    expect(is('11.1.2.3', '10.0.0.0/8')).toBe(false)
    expect(is('[::1]', '::1')).toBe(true)
    expect(is('::1', '[::1]:443')).toBe(true)
    expect(is('::1', '[::1]:80')).toBe(false)
    const environment = { https_proxy: 'http://p:1', HTTP_PROXY: 'http://q:2', NO_PROXY: 'local' }
    expect(proxyOfEnvironment('a', 443, true, environment)?.host).toBe('p')
    expect(proxyOfEnvironment('a', 80, false, environment)?.host).toBe('q')
    expect(proxyOfEnvironment('local', 443, true, environment)).toBeUndefined()
  })
})

describe('kept connections', () => {
  it('that died without a word are not tried one after the other', async () => {
    const dead = new Set<{ isDead: boolean }>()
    const way = createServer((client) => {
      const state = { isDead: false }
      dead.add(state)
      const onward = connect(servicePort, '127.0.0.1')
      client.on('data', (bytes) => state.isDead || onward.write(bytes))
      onward.on('data', (bytes) => state.isDead || client.write(bytes))
      for (const socket of [client, onward]) socket.on('error', () => {}).on('close', () => onward.destroy())
    })
    const endpoint = `http://127.0.0.1:${await listening(way)}`
    const client = target.client({ endpoint, requestHandler: pageHttpHandler() })
    const options = {
      client,
      firstByteTimeoutMs: 1_000,
      segmentBytes: pageSizeBytes,
      retryBaseMs: 1,
      hedgeShare: 0,
    }
    const backup = await openOn(target, options)
    const { handles } = await backup.backupPages([randomPages(16)])
    const runs = pick(
      handles,
      Array.from({ length: 16 }, (_, page) => page),
    )
    const readOne = async (run: (typeof runs)[number]) => {
      const { error } = await backup.copyPages([run], [Buffer.alloc(pageSizeBytes)])
      expect(error).toBeUndefined()
    }
    await Promise.all(runs.map(readOne))
    expect(dead.size).toBeGreaterThan(5)
    for (const state of dead) state.isDead = true
    const { retries } = backup.stats()
    await readOne(runs[0])
    expect(backup.stats().retries - retries).toBe(1)
    await backup.close()
  })

  it('are asked by the system whether the other side is still there', async () => {
    const setKeepAlive = vi.spyOn(Socket.prototype, 'setKeepAlive')
    await work({}, {})
    expect(setKeepAlive).toHaveBeenCalledWith(true, 15_000)
    setKeepAlive.mockRestore()
  })
})

describe('headers', () => {
  const request = { method: 'GET', protocol: 'http:', hostname: '::1', port: 9, path: '/k', headers: {} }
  const head = (headers: Record<string, string>) =>
    requestHead({ ...request, headers }, { sendsExpect: false })

  it('have names that are tokens, and one host, however it is written', () => {
    for (const name of ['a b', 'a:b', '', 'ä', 'a(b)', 'a\tb'])
      expect(() => head({ [name]: 'x' })).toThrow(TypeError)
    expect(head({})).toBe('GET /k HTTP/1.1\r\nhost: [::1]:9\r\n\r\n')
    expect(head({ Host: 'h' })).toBe('GET /k HTTP/1.1\r\nHost: h\r\n\r\n')
    expect(head({ host: 'h', Host: 'h', Expect: '100-continue' })).toBe('GET /k HTTP/1.1\r\nhost: h\r\n\r\n')
    expect(() => head({ host: 'h', Host: 'other' })).toThrow(TypeError)
    expect(() => head({ 'x-a': '1', 'X-A': '2' })).toThrow(TypeError)
  })
})
