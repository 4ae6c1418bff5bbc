import { tracingChannel } from 'node:diagnostics_channel'
import { request } from 'node:http'
import { memoryBackup } from '@spillway/core'
import { MemoryBudget, Pool } from '@spillway/pool'
import { describe, expect, it } from 'vitest'
import { openDashboard } from '../src/index.ts'
import { ChromiumPage, findChromium } from './support/chromium.ts'

const mebibyte = 1024 ** 2

interface Asked {
  readonly method?: string
  readonly host?: string
}

/** The status and the body of an answer; `fetch` would not let the header Host be set. */
function ask(url: string, { method = 'GET', host }: Asked = {}): Promise<{ status: number; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const headers = host === undefined ? {} : { host }
    const asking = request(url, { method, headers }, (response) => {
      const parts: Buffer[] = []
      response.on('data', (part: Buffer) => parts.push(part))
      response.on('end', () => resolve({ status: response.statusCode!, body: Buffer.concat(parts) }))
    })
    asking.on('error', reject).end()
  })
}

/** What a frame says, and its cells. */
function parse(body: Buffer) {
  const length = body.readUInt32LE(0)
  return { head: JSON.parse(body.toString('utf8', 4, 4 + length)), cells: body.subarray(4 + length) }
}

describe('the dashboard', () => {
  it('shows frames with the figures and cells of pools, budgets and backups', async () => {
    const budget = new MemoryBudget({ limitBytes: 8 * mebibyte, name: 'all' })
    await using backup = memoryBackup({ name: 'store' })
    await using pool = new Pool({ budget, backup, name: 'images', background: false })
    const buffer = await pool.allocate(16 * mebibyte, { label: 'photo' })
    await using dashboard = await openDashboard({ pools: () => [pool] })
    await ask(`${dashboard.url}frame`)
    await buffer.fill(1)
    // Pages that look at the same moment get the same frame: at first it may be the one of before.
    let frame = parse((await ask(`${dashboard.url}frame`)).body)
    while (frame.head.durations.length === 0 || frame.cells.every((cell) => cell === 0))
      frame = parse((await ask(`${dashboard.url}frame`)).body)
    const { head, cells } = frame
    expect(head.pools).toMatchObject([{ name: 'images', budget: 'all', backups: ['store'] }])
    expect(head.pools[0].stats).toEqual(pool.stats())
    expect(head.budgets).toMatchObject([{ name: 'all', limitBytes: 8 * mebibyte }])
    expect(head.backups).toMatchObject([{ name: 'store', livePages: backup.stats().livePages }])
    expect(head.layout.pools).toEqual([[['photo', 16 * mebibyte, 2 * mebibyte, 8]]])
    expect([...cells]).toEqual([...buffer.map()])
    const again = parse((await ask(`${dashboard.url}frame?layout=${head.layout.version}`)).body)
    expect(again.head.layout).toEqual({ version: head.layout.version })
  })

  it('has all buffers of a pool in its map, and a terabyte in bounded cells', async () => {
    await using pool = new Pool({ limitBytes: 4 * mebibyte })
    const buffers = [await pool.allocate(2 ** 40)]
    while (buffers.length <= 3000) buffers.push(await pool.allocate(100 * mebibyte))
    await using dashboard = await openDashboard({ pools: () => [pool] })
    const { head, cells } = parse((await ask(`${dashboard.url}frame`)).body)
    expect(head.layout.pools[0]).toHaveLength(buffers.length)
    expect(cells.length).toBeLessThanOrEqual(16_384)
  })

  it('tells of the buffers anew when a pool takes the place of one of the same shape', async () => {
    const pools = [new Pool({ limitBytes: 4 * mebibyte, name: 'first' })]
    await using dashboard = await openDashboard({ pools: () => pools })
    const look = async (known: number) =>
      parse((await ask(`${dashboard.url}frame?layout=${known}`)).body).head
    const { layout } = await look(0)
    await pools.splice(0, 1, new Pool({ limitBytes: 4 * mebibyte, name: 'second' }))[0]!.close()
    let next = await look(layout.version)
    while (next.pools[0].name === 'first') next = await look(layout.version)
    expect(next.layout).toEqual({ version: layout.version + 1, pools: [[]] })
    await pools[0]!.close()
  })

  it('tells nothing to whoever lacks the token, or asks by another name', async () => {
    await using dashboard = await openDashboard({ pools: () => [] })
    const { origin, port } = new URL(dashboard.url)
    const wrong = [
      ask(origin),
      ask(`${origin}/frame`),
      ask(`${origin}/${'x'.repeat(32)}/`),
      ask(`${dashboard.url.slice(0, -2)}/`),
      ask(dashboard.url, { host: `evil.example:${port}` }),
      ask(dashboard.url, { host: '127.0.0.1' }),
      ask(`${dashboard.url}frame`, { host: `127.0.0.1.evil.example:${port}` }),
    ]
    for (const answer of await Promise.all(wrong)) {
      expect(answer.status).toBe(403)
      expect(answer.body).toHaveLength(0)
    }
    expect((await ask(dashboard.url, { host: `localhost:${port}` })).status).toBe(200)
    expect((await ask(dashboard.url, { method: 'POST' })).status).toBe(405)
    for (const path of ['../package.json', '..%2fpackage.json', 'main.js/x', 'page'])
      expect([403, 404]).toContain((await ask(dashboard.url + path)).status)
  })

  it('refuses hosts that are not this machine, ports that are taken, and what is no option', async () => {
    for (const host of ['0.0.0.0', '::', 'example.com', '10.0.0.1', '127.0.0.1.example.com', ''])
      await expect(openDashboard({ host })).rejects.toMatchObject({ code: 'EINVAL' })
    await using first = await openDashboard()
    const port = Number(new URL(first.url).port)
    await expect(openDashboard({ port })).rejects.toMatchObject({ code: 'EADDRINUSE' })
    await expect(openDashboard({ port: 70_000 })).rejects.toThrow(RangeError)
    await expect(openDashboard({ prot: 1 } as object)).rejects.toThrow(TypeError)
    await expect(openDashboard({ pools: [] as never })).rejects.toThrow(TypeError)
    await expect(openDashboard({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'EINTR' })
  })

  it('listens to the pools only from the first look on, and not after it is closed', async () => {
    const { hasSubscribers } = tracingChannel('spillway:pool:page-in')
    expect(hasSubscribers).toBe(false)
    const dashboard = await openDashboard({ pools: () => [] })
    expect(tracingChannel('spillway:pool:page-in').hasSubscribers).toBe(false)
    await ask(`${dashboard.url}frame`)
    expect(tracingChannel('spillway:pool:page-in').hasSubscribers).toBe(true)
    await Promise.all([dashboard.close(), dashboard.close()])
    expect(tracingChannel('spillway:pool:page-in').hasSubscribers).toBe(false)
    await expect(ask(dashboard.url)).rejects.toMatchObject({ code: expect.stringMatching('ECONN') })
  })
})

const chromium = findChromium()
if (chromium === undefined) console.error('no Chromium here: the page of the dashboard is not tried')

describe.skipIf(chromium === undefined)('its page', () => {
  it('shows a thrashing pool, tells of the chunk under the keys, and asks nobody but its server', async () => {
    await using backup = memoryBackup({ name: 'store' })
    await using pool = new Pool({ limitBytes: 8 * mebibyte, backup, name: 'small' })
    await using calm = new Pool({ limitBytes: 8 * mebibyte, name: 'calm' })
    const buffer = await pool.allocate(12 * mebibyte, { label: 'hot set', maxOrder: 2 })
    await buffer.fill(1)
    await using dashboard = await openDashboard({ pools: () => [pool, calm] })
    await using page = await ChromiumPage.open(chromium!)
    await page.show(dashboard.url, { width: 900 })
    const word = (index: number) =>
      `document.querySelectorAll('.verdict strong')[${index}]?.textContent ?? ''`
    await page.until(`${word(1)}.includes('Calm')`)
    let isOver = false
    const thrashing = thrash(buffer, () => isOver)
    try {
      await page.until(`${word(0)}.includes('Thrashing')`)
    } finally {
      isOver = true
      await thrashing
    }
    expect(await page.value(word(1))).toContain('Calm')
    // The canvas is reached with the keyboard, and its cells too.
    const isThere = "document.activeElement.tagName === 'CANVAS'"
    for (let tabs = 0; tabs < 10 && !(await page.value<boolean>(isThere)); tabs++) await page.press('Tab')
    await page.press('ArrowRight')
    await page.press('ArrowRight')
    expect(await page.value("document.querySelector('.readout').textContent")).toMatch(
      /^hot set, cell 1: bytes 16\.0 KiB to 32\.0 KiB of 12\.0 MiB, \w/,
    )
    await expectReadable(page)
    expect(page.problems).toEqual([])
    const { origin } = new URL(dashboard.url)
    expect(page.requests.filter((url) => !url.startsWith(origin) && !url.startsWith('data:'))).toEqual([])
    await dashboard.close()
    await page.until("!document.getElementById('connection').hidden")
  })
})

/** Reads at random, more than fits, until it is over. */
async function thrash(
  buffer: { read(offset: number, into: Uint8Array): Promise<void> },
  isOver: () => boolean,
) {
  const bytes = new Uint8Array(16_384)
  while (!isOver()) {
    for (let count = 0; count < 100; count++)
      await buffer.read(Math.floor(Math.random() * 768) * 16_384, bytes)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** Nothing is wider than the page, and whatever is drawn has a name for who does not see it. */
async function expectReadable(page: ChromiumPage): Promise<void> {
  for (const width of [500, 900, 1400]) {
    await page.look({ width, dark: width === 900 })
    await page.until(`innerWidth === ${width}`)
    expect(await page.value('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width)
  }
  const { nodes } = (await page.send('Accessibility.getFullAXTree')) as {
    nodes: { ignored: boolean; role?: { value: string }; name?: { value: string } }[]
  }
  const shown = nodes.filter(({ ignored }) => !ignored)
  const named = (role: string) =>
    shown.filter((node) => node.role?.value === role).map(({ name }) => name?.value)
  const drawn = named('image')
  expect(drawn.length).toBeGreaterThanOrEqual(12)
  expect(drawn.filter((name) => !name)).toEqual([])
  expect(named('heading')).toContain('small')
  expect(named('button')).toEqual(['Pause'])
}
