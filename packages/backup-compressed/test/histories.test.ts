import { type Backup, faultyBackup, memoryBackup, seededRandom } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { compressedBackup } from '../src/index.ts'
import { contentOf, kinds, pageBytes } from './content.ts'

interface Held {
  readonly handle: number
  readonly bytes: Uint8Array
}

/** Random calls, several at once, against a plain list of pages; faults of the inner backup as often as `rate` says. */
async function history(seed: number, rate: number, capacityPages: number, steps: number): Promise<void> {
  const random = seededRandom(seed)
  const below = (end: number) => Math.floor(random() * end)
  const inner = faultyBackup(memoryBackup({ capacityBytes: capacityPages * pageBytes }), {
    seed,
    random: { rate },
  })
  const backup = compressedBackup(inner, { compactionBytesPerSecond: 2 ** 40 })
  let held: Held[] = []
  let contents = 0

  const storeSome = async () => {
    const parts = Array.from({ length: 1 + below(4) }, () =>
      contentOf(kinds[below(5)], seed + contents++, 1 + below(24)),
    )
    const { handles, error } = await backup.backupPages(parts)
    const pages = parts.flatMap((part) =>
      Array.from({ length: part.byteLength / pageBytes }, (_, page) =>
        part.slice(page * pageBytes, (page + 1) * pageBytes),
      ),
    )
    let stored = 0
    for (const { first, count } of handles) {
      for (let at = 0; at < count; at++) held.push({ handle: first + at, bytes: pages[stored++] })
    }
    expect(error === undefined).toBe(stored === pages.length)
  }
  const readSome = async (chosen: Held[]) => {
    const into = new Uint8Array(chosen.length * pageBytes).fill(0xa5)
    const runs = chosen.map(({ handle }) => ({ first: handle, count: 1 }))
    const { copied, error } = await backup.copyPages(runs, into.byteLength > 0 ? [into] : [])
    expect(error === undefined).toBe(copied === chosen.length)
    for (let page = 0; page < copied; page++) assertPage(into, page, chosen[page])
    return copied
  }
  const dropSome = async () => {
    const chosen = new Set(
      Array.from({ length: 1 + below(40) }, () => held[below(held.length)]).filter(Boolean),
    )
    held = held.filter((page) => !chosen.has(page))
    try {
      await backup.drop([...chosen].map(({ handle }) => ({ first: handle, count: 1 })))
    } catch {
      held.push(...chosen)
    }
  }
  const startOne = async () => {
    const page = held[below(held.length)]
    if (page === undefined) return
    const into = new Uint8Array(pageBytes)
    await new Promise<void>((resolve) => {
      const began = backup.startCopy?.(page.handle, into, (copied, error) => {
        if (error === undefined && copied === 1) assertPage(into, 0, page)
        resolve()
      })
      if (began !== true) resolve()
    })
  }
  try {
    for (let step = 0; step < steps; step++) {
      const dice = random()
      const chosen = held.filter(() => random() < 0.1)
      // What is read is not dropped meanwhile.
      if (dice < 0.4) await Promise.all([storeSome(), readSome(chosen), storeSome()])
      else if (dice < 0.7) await Promise.all([dropSome(), storeSome()])
      else await Promise.all([readSome(chosen), startOne()])
    }
    inner.heal()
    expect(backup.stats().livePages).toBe(held.length)
    for (let from = 0; from < held.length; from += 64) {
      const part = held.slice(from, from + 64)
      expect(await readSome(part)).toBe(part.length)
    }
    await backup.drop(held.map(({ handle }) => ({ first: handle, count: 1 })))
    await settle(backup)
    expect(backup.stats()).toMatchObject({ livePages: 0, packedBytes: 0, sameFilledPages: 0 })
    expect(inner.stats().livePages).toBe(0)
  } catch (cause) {
    throw new Error(`seed ${seed}: ${(cause as Error).message}`, { cause })
  } finally {
    await backup.close()
  }
}

function assertPage(into: Uint8Array, page: number, { handle, bytes }: Held): void {
  if (Buffer.compare(into.subarray(page * pageBytes, (page + 1) * pageBytes), bytes) === 0) return
  throw new Error(`page with handle ${handle} is not what was stored`)
}

/** What a faulty inner backup refused to drop is dropped in the end. */
async function settle(backup: Backup): Promise<void> {
  for (let turn = 0; turn < 300; turn++) {
    const { inner } = backup.stats() as unknown as { inner: { livePages: number } }
    if (inner.livePages === 0) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe('random histories of a compressed backup', () => {
  const base = Math.floor(Math.random() * 2 ** 30)
  for (let number = 0; number < 6; number++) {
    it(`lose and mix up nothing: ${number % 2 === 0 ? 'without' : 'with'} faults, ${number < 3 ? 'with room' : 'full'}, ${number}`, async () => {
      await history(base + number, number % 2 === 0 ? 0 : 0.1, number < 3 ? 4096 : 160, 80)
    })
  }
})
