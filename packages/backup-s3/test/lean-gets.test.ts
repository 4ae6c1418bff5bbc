/** GETs that do without the way through the client: they are what the client would have sent, and know when not to be. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { pageHttpHandler, type S3BackupOptions } from '../src/index.ts'
import { faults, type S3Target, s3Target } from './harness/index.ts'
import { openOn, pick, randomPages, read } from './stores.ts'

let target: S3Target
beforeEach(async () => {
  target = await s3Target({ embedded: true, reuseProcess: true })
})
afterEach(() => target.close())

const pages = 40
const content = randomPages(pages)

/** A client with `pageHttpHandler()`. Once it is watched, it counts the GETs that come its way. */
function watchableClient(config: Parameters<S3Target['client']>[0] = {}) {
  const client = target.client({ requestHandler: pageHttpHandler(), ...config })
  const watched = { client, gets: 0, watch }
  /** What an application does that wants to see every request. */
  function watch() {
    client.middlewareStack.add(
      (next, context) => (args) => {
        if (context.commandName === 'GetObjectCommand') watched.gets++
        return next(args)
      },
      { step: 'initialize', name: 'watching' },
    )
  }
  return watched
}

async function stored(options: Partial<S3BackupOptions>) {
  const backup = await openOn(target, { deleteDelayMs: 0, retryBaseMs: 1, ...options })
  const { handles, error } = await backup.backupPages([content])
  if (error !== undefined) throw error
  const readPage = async (page: number) => {
    const found = await read(backup, pick(handles, [page]))
    expect(found.equals(content.subarray(page * 4096, (page + 1) * 4096))).toBe(true)
  }
  const readAll = async (count: number) => {
    for (let page = 0; page < count; page++) await readPage(page % pages)
  }
  return { backup, handles, readPage, readAll }
}

const gets = async () => (await target.server!.log('GetObject')).filter(({ key }) => key.includes('/s-'))

describe('GETs of pages', () => {
  it('say the same as those of the client, on the same connection', async () => {
    const { backup, readAll } = await stored({ client: watchableClient().client })
    await readAll(20)
    const requests = await gets()
    expect(requests).toHaveLength(20)
    const [first, ...others] = requests
    for (const { headers, range, status, connection } of others) {
      expect(headers).toEqual(first.headers)
      expect([status, connection]).toEqual([206, first.connection])
      expect(range).not.toBe(first.range)
    }
    await backup.close()
  })

  it('go through the client when the application has middleware in it', async () => {
    const watched = watchableClient()
    watched.watch()
    const { backup, readAll } = await stored({ client: watched.client })
    const before = watched.gets
    await readAll(20)
    expect(watched.gets - before).toBe(20)
    await backup.close()
  })

  it('see middleware that comes later after a thousand at the most', async () => {
    const watched = watchableClient()
    const { backup, readAll } = await stored({ client: watched.client })
    await readAll(5)
    watched.watch()
    await readAll(1010)
    expect(watched.gets).toBeGreaterThan(5)
    await backup.close()
  })

  it('are signed with the credentials of the moment', async () => {
    const users = ['one', 'two'].map((accessKeyId) => ({
      accessKeyId,
      secretAccessKey: `${accessKeyId}-secret`,
    }))
    await target.server!.setCredentials([...users, target.credentials])
    let current = 0
    const credentials = async () => ({ ...users[current], expiration: new Date(Date.now() + 1) })
    const { backup, readAll } = await stored({ client: watchableClient({ credentials }).client })
    await readAll(5)
    current = 1
    await new Promise((resolve) => setTimeout(resolve, 5))
    await readAll(5)
    const signers = (await gets()).map(({ accessKeyId }) => accessKeyId)
    expect(signers).toEqual([...Array(5).fill('one'), ...Array(5).fill('two')])
    await backup.close()
  })

  it('are refused as those of the client are, with the service’s own code', async () => {
    const { backup, handles, readAll } = await stored({ client: watchableClient().client })
    await readAll(3)
    await target.server!.faults.once('GetObject', faults.accessDenied)
    const memory = Buffer.alloc(4096)
    const { error } = await backup.copyPages(pick(handles, [3]), [memory])
    expect(error).toMatchObject({ code: 'EACCES', message: expect.stringContaining('AccessDenied, 403') })
    await target.server!.faults.once('GetObject', faults.slowDown)
    await readAll(3)
    expect(backup.stats().throttles).toBe(1)
    await backup.close()
  })

  it('go on when the clocks have drifted apart', async () => {
    const { backup, readAll } = await stored({ client: watchableClient().client })
    await readAll(3)
    await target.server!.setClock(20 * 60_000)
    await readAll(3)
    expect(backup.stats().retries).toBe(1)
    await target.server!.setClock(0)
    await backup.close().catch(() => {})
  })
})
