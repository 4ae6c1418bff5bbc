/** Single pages that go past the SDK's middleware: when they do, when they do not, and what is the same either way. */
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import { pageHttpHandler, type S3Backup, type S3BackupOptions } from '@spillway/backup-s3'
import { faults, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { SignedGets } from '../src/service/signed-get.ts'
import { openOn, pageSizeBytes, pick, randomPages } from './stores.ts'

let target: S3Target
const segment = '/s-'
const content = randomPages(64)

beforeAll(async () => {
  target = await s3Target({ embedded: true })
})
afterEach(async () => {
  await target.server!.faults.clear()
  await target.server!.setClock(0)
})
afterAll(() => target.close())

interface Opened {
  readonly backup: S3Backup
  /** Reads so many pages, one request each, and looks at every byte. */
  readPages(count: number): Promise<void>
}

async function openWith(
  config: S3ClientConfig | S3Client = {},
  options: Partial<S3BackupOptions> = {},
): Promise<Opened> {
  const client =
    config instanceof S3Client ? config : target.client({ requestHandler: pageHttpHandler(), ...config })
  const backup = await openOn(target, { client, mergeGapBytes: 0, retryBaseMs: 1, hedgeShare: 0, ...options })
  const { handles } = await backup.backupPages([content])
  const readPages = async (count: number) => {
    for (let page = 0; page < count; page++) {
      const at = (page * 7) % 64
      const memory = Buffer.alloc(pageSizeBytes)
      const { error } = await backup.copyPages(pick(handles, [at]), [memory])
      expect(error).toBeUndefined()
      expect(memory.equals(content.subarray(at * pageSizeBytes, (at + 1) * pageSizeBytes))).toBe(true)
    }
  }
  return { backup, readPages }
}

describe('GETs of pages go past the middleware', () => {
  it.each(['pageHttpHandler()', 'the SDK handler'])(
    'after the first, with %s, and are counted as they are',
    async (name) => {
      const { backup, readPages } = await openWith(name === 'the SDK handler' ? target.client() : {})
      const before = backup.stats().costs.verbs.get.requests
      await target.server!.clearLog()
      await readPages(10)
      const { pageRequests, costs } = backup.stats()
      expect(pageRequests).toEqual({ way: 'direct', reason: undefined, direct: 9, throughSdk: 1 })
      const gets = await target.server!.log('GetObject')
      expect(costs.verbs.get.requests - before).toBe(10)
      expect(gets).toHaveLength(10)
      expect(new Set(gets.map(({ headers }) => headers['user-agent'])).size).toBe(1)
      await backup.close()
    },
  )

  it('with session tokens, and with a prefix that has to be escaped', async () => {
    const sessionToken = 'token+/='
    const credentials = { ...target.credentials, sessionToken }
    await target.server!.setCredentials([
      target.credentials,
      { accessKeyId: 'b', secretAccessKey: 'c', sessionToken },
    ])
    const prefix = `${target.prefix()}ü (1)*'!+&=%41/`
    const { backup, readPages } = await openWith(
      { credentials: { ...credentials, accessKeyId: 'b', secretAccessKey: 'c' } },
      { prefix },
    )
    await readPages(5)
    expect(backup.stats().pageRequests).toMatchObject({ way: 'direct', direct: 4 })
    await backup.close()
  })

  it('again and again where the clocks differ, which answers tell', async () => {
    const { backup, readPages } = await openWith()
    await readPages(2)
    for (const hours of [1, -2, 0]) {
      await target.server!.setClock(hours * 3_600_000)
      await readPages(4)
    }
    expect(backup.stats().pageRequests.direct).toBeGreaterThan(6)
    await backup.close()
  })
})

describe('GETs of pages go through the client', () => {
  const seenBy = (client: S3Client) => {
    const seen: string[] = []
    client.middlewareStack.add(
      (next, context) => (args) => {
        seen.push(String(context.commandName))
        return next(args)
      },
      { step: 'initialize', name: 'application' },
    )
    return seen
  }

  it('when it has middleware of its own, which sees every one, and not when that is gone', async () => {
    const client = target.client({ requestHandler: pageHttpHandler() })
    const { backup, readPages } = await openWith(client)
    await readPages(3)
    const seen = seenBy(client)
    await readPages(5)
    expect(seen.filter((name) => name === 'GetObjectCommand')).toHaveLength(5)
    expect(backup.stats().pageRequests).toMatchObject({ way: 'sdk', direct: 2, throughSdk: 6 })
    expect(backup.stats().pageRequests.reason).toContain('middleware')
    client.middlewareStack.remove('application')
    await readPages(5)
    expect(backup.stats().pageRequests).toMatchObject({ way: 'direct', direct: 7 })
    await backup.close()
  })

  it('when middleware takes the name of the SDK’s own', async () => {
    const client = target.client({ requestHandler: pageHttpHandler() })
    const { backup, readPages } = await openWith(client)
    await readPages(2)
    let seen = 0
    client.middlewareStack.add(
      (next) => (args) => {
        seen++
        return next(args)
      },
      { step: 'initialize', name: 'loggerMiddleware', override: true },
    )
    await readPages(3)
    expect(seen).toBe(3)
    await backup.close()
  })

  class Subclass extends S3Client {}
  const ownSend = () => {
    const client = target.client()
    const send = client.send.bind(client)
    return Object.assign(client, {
      send: (...args: unknown[]) => (send as (...all: unknown[]) => unknown)(...args),
    }) as S3Client
  }
  const strategy = {
    acquireInitialRetryToken: async () => ({ getRetryCount: () => 0, getRetryDelay: () => 0 }),
    refreshRetryTokenForRetry: async () => {
      throw new Error('no retries')
    },
    recordSuccess: () => {},
  }
  const nothing = () => {}
  const logger = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing }
  it.each<[string, () => S3Client]>([
    ['send', ownSend],
    ['subclass', () => new Subclass(target.clientConfig)],
    ['adaptive', () => target.client({ retryMode: 'adaptive' })],
    ['retry strategy', () => target.client({ retryStrategy: strategy as never })],
    ['logger', () => target.client({ logger })],
    ['middleware', () => Object.assign(target.client(), {}) as S3Client],
  ])('when it has a %s of its own', async (reason, make) => {
    const client = make()
    if (reason === 'middleware') seenBy(client)
    const { backup, readPages } = await openWith(client)
    await readPages(4)
    const { pageRequests } = backup.stats()
    expect(pageRequests).toMatchObject({ way: 'sdk', direct: 0, throughSdk: 4 })
    expect(pageRequests.reason).toContain(reason)
    await backup.close()
  })

  it('when send is wrapped on the prototype', async () => {
    const { backup, readPages } = await openWith()
    await readPages(2)
    const prototype = S3Client.prototype as { send: unknown }
    const had = Object.hasOwn(prototype, 'send')
    const send = prototype.send as (...args: unknown[]) => unknown
    let seen = 0
    prototype.send = function (this: unknown, ...args: unknown[]) {
      seen++
      return send.apply(this, args)
    }
    try {
      await readPages(3)
      expect(seen).toBe(3)
    } finally {
      if (had) prototype.send = send
      else delete (prototype as { send?: unknown }).send
    }
    await readPages(1)
    expect(backup.stats().pageRequests.way).toBe('direct')
    await backup.close()
  })

  it('when a signer of its own signs otherwise', async () => {
    const plain = target.client()
    const own = await (plain.config as unknown as { signer: () => Promise<{ sign: unknown }> }).signer()
    const client = target.client({ signer: own as never })
    const backup = await openOn(target, { client }).catch((error) => error)
    // Whatever becomes of it, nothing was signed here.
    if (!(backup instanceof Error)) {
      expect(backup.stats().pageRequests).toMatchObject({ way: 'sdk', direct: 0 })
      await backup.close()
    }
  })

  it('when their credentials end in a moment', async () => {
    let asked = 0
    const credentials = async () => {
      asked++
      return { ...target.credentials, expiration: new Date(Date.now() + 500) } as never
    }
    const { backup, readPages } = await openWith({ credentials })
    await readPages(4)
    expect(backup.stats().pageRequests).toMatchObject({ direct: 0, throughSdk: 4 })
    expect(asked).toBeGreaterThan(3)
    await backup.close()
  })

  it('when they were refused in a way that the SDK has to see', async () => {
    const { backup, readPages } = await openWith()
    await readPages(2)
    await target.server!.clearLog()
    await target.server!.faults.once('GetObject', faults.expiredToken, { keyIncludes: segment })
    await readPages(3)
    const statuses = (await target.server!.log('GetObject')).map(({ status }) => status)
    expect(statuses).toEqual([400, 206, 206, 206])
    expect(backup.stats().pageRequests).toMatchObject({ way: 'direct', throughSdk: 2 })
    expect(backup.stats().retries).toBe(0)
    await backup.close()
  })

  it('when the option says so, and past everything when it says that', async () => {
    const { backup, readPages } = await openWith({}, { pageRequests: 'sdk' })
    await readPages(3)
    expect(backup.stats().pageRequests).toMatchObject({
      way: 'sdk',
      direct: 0,
      reason: "pageRequests is 'sdk'",
    })
    await backup.close()
    const client = target.client({ requestHandler: pageHttpHandler(), logger })
    const forced = await openWith(client, { pageRequests: 'direct' })
    await forced.readPages(3)
    expect(forced.backup.stats().pageRequests).toMatchObject({ way: 'direct', direct: 2 })
    await forced.backup.close()
    await expect(openWith({}, { pageRequests: 'both' as never })).rejects.toThrow(TypeError)
  })
})

describe('GETs that are signed here', () => {
  it.each([
    ['a 500', faults.internalError],
    ['503', faults.slowDown],
    ['an answer that is cut', faults.cut(100)],
    ['a dropped connection', faults.dropped],
    ['a flipped bit', faults.flipped()],
    ['another range', faults.truncated(1)],
  ])('are tried again after %s', async (_, fault) => {
    const { backup, readPages } = await openWith()
    await readPages(2)
    await target.server!.faults.once('GetObject', fault, { keyIncludes: segment })
    await readPages(1)
    expect(backup.stats().pageRequests).toMatchObject({ way: 'direct', throughSdk: 1 })
    await backup.close()
  })

  it('end when the first byte does not come in time, and are told with the key', async () => {
    const { backup, readPages } = await openWith({}, { firstByteTimeoutMs: 2_000, retryForMs: 500 })
    await readPages(2)
    await target.server!.faults.always('GetObject', faults.hung, { keyIncludes: segment })
    const { handles } = await backup.backupPages([randomPages(1)])
    const { error } = await backup.copyPages(handles, [Buffer.alloc(pageSizeBytes)])
    expect(error).toMatchObject({ code: 'ETIMEDOUT' })
    expect(error!.message).toContain('/s-')
    await backup.close()
  })

  it('are not made from a request whose signature does not come out here', () => {
    const headers = {
      host: 'h',
      range: 'bytes=0-1',
      'x-amz-content-sha256': 'UNSIGNED-PAYLOAD',
      'x-amz-date': '20261128T000000Z',
      authorization: `AWS4-HMAC-SHA256 Credential=a/20261128/r/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=${'0'.repeat(64)}`,
    }
    const request = { protocol: 'https:', hostname: 'h', path: '/b/k', headers }
    expect(SignedGets.from(request, 'k', { accessKeyId: 'a', secretAccessKey: 's' })).toBeUndefined()
    expect(SignedGets.from({ ...request, headers: { host: 'h' } }, 'k', {})).toBeUndefined()
  })
})
