import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { seededRandom } from '@spillway/core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { WarmCache } from '../src/warm-cache.ts'
import { ServerProcess } from './server-process.ts'

/** `.ci/run` kills it 100 times. */
const kills = Number(process.env['SPILLWAY_KILLS'] ?? 10)
const seed = Math.floor(Math.random() * 2 ** 31)
const names = ['a', 'b', 'c', 'd']

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'warm-restart-'))
})
afterAll(() => rm(directory, { recursive: true }))

/** Version `version` of a blob: 4 bytes to 256 KiB, and each word of it says where it belongs. */
function contentOf(name: string, version: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(1 + (Math.imul(version, 0x9e3779b1) >>> 16))
  const key = version * 256 + name.charCodeAt(0)
  for (let word = 0; word < words.length; word++) words[word] = Math.imul(word + 1, 0x85ebca6b) ^ key
  return new Uint8Array(words.buffer)
}

/** Which versions each blob may have; `undefined` is that it is not there. The first one is what was acknowledged last. */
class Expected {
  readonly #random = seededRandom(seed)
  readonly #allowed = new Map<string, (number | undefined)[]>(names.map((name) => [name, [undefined]]))
  #version = 0
  acknowledged = 0

  /** Puts and deletes a blob again and again until the server is gone. */
  async change(url: string, name: string): Promise<void> {
    for (;;) {
      const next = this.#random() < 0.15 ? undefined : ++this.#version
      this.#allowed.get(name)!.push(next)
      try {
        const response = await fetch(`${url}/${name}`, {
          ...(next === undefined ? { method: 'DELETE' } : { method: 'PUT', body: contentOf(name, next) }),
        })
        expect(response.ok, `seed ${seed}: ${response.status}`).toBe(true)
      } catch (failure) {
        if (failure instanceof TypeError) return // the connection broke
        throw failure
      }
      this.#allowed.set(name, [next])
      this.acknowledged++
    }
  }

  /** Reads every blob: each has to be one that it may be, whole. From then on it may be that one only. */
  async verify(url: string, kill: number): Promise<void> {
    for (const name of names) {
      const response = await fetch(`${url}/${name}`)
      const found = response.status === 404 ? undefined : Buffer.from(await response.arrayBuffer())
      const allowed = this.#allowed.get(name)!
      const match = allowed.findIndex((version) =>
        version === undefined ? found === undefined : found?.equals(contentOf(name, version)),
      )
      expect(match, `seed ${seed}, kill ${kill}: ${name} is none of ${allowed}`).not.toBe(-1)
      this.#allowed.set(name, [allowed[match]])
    }
  }

  /** Resolves at a random moment: up to 2 changes and 40 ms later. */
  async moment(): Promise<void> {
    const changes = this.acknowledged + Math.floor(this.#random() * 3)
    const pauseMs = this.#random() * 40
    while (this.acknowledged < changes) await delay(1)
    await delay(pauseMs)
  }
}

it(
  `has every blob back, whole, the old or the new one, after each of ${kills} kills`,
  async () => {
    const path = join(directory, 'store')
    const expected = new Expected()
    let server = new ServerProcess(path)
    for (let kill = 1; kill <= kills; kill++) {
      const url = await server.url
      // It waits for the file until this one is killed.
      const next = new ServerProcess(path)
      await expected.verify(url, kill)
      const changing = Promise.all(names.map((name) => expected.change(url, name)))
      await Promise.race([expected.moment(), changing])
      await server.kill()
      await changing
      server = next
    }
    await expected.verify(await server.url, kills + 1)
    await server.kill()
    expect(expected.acknowledged).toBeGreaterThan(kills / 2)
  },
  10 * 60_000,
)

it('gives up the blobs that were asked for least recently, and has what it kept after a restart', async () => {
  const options = { path: join(directory, 'small'), limitBytes: 2 ** 21, capacityBytes: 2 ** 20 }
  const put = (cache: WarmCache, name: string, bytes: number) =>
    cache.put(name, bytes, [new Uint8Array(bytes).fill(name.charCodeAt(0))].values() as never)
  {
    await using cache = await WarmCache.open(options)
    for (const name of names) await put(cache, name, 2 ** 18)
    expect(await cache.use('a', async () => {})).toBe(true)
    await put(cache, 'e', 2 ** 18)
    expect(cache.names).toEqual(['a', 'c', 'd', 'e'])
    await expect(put(cache, 'f', 2 ** 21)).rejects.toThrow(RangeError)
    await cache.delete('c')
  }
  await using cache = await WarmCache.open(options)
  expect(cache.names).toEqual(['a', 'd', 'e'])
  let first: number | undefined
  await cache.use('e', async (buffer) => {
    const bytes = new Uint8Array(2 ** 18)
    await buffer.read(0, bytes)
    first = bytes.findIndex((byte) => byte !== 'e'.charCodeAt(0))
  })
  expect(first).toBe(-1)
})
