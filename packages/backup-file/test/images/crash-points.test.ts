import { describe, expect, it } from 'vitest'
import type { Change, SyncFate } from '../losing-file/losing-file.ts'
import { HistoryWriter, history, judge, newFile } from './history.ts'
import { layout, SmallStore } from './small-store.ts'

const seed = Math.floor(Math.random() * 2 ** 32)
/** `npm run test:images:long` looks at many more crashes of the same kinds. */
const isLong = process.env['SPILLWAY_LONG'] === '1'
/** It opens each state that a crash may leave; else one of eight is opened, and others each time. */
const oneOf = isLong ? 1 : 8
/** How long each of the tests goes on with further histories and crashes in the long form. Default: to its end. */
const longMs = 1000 * Number(process.env['SPILLWAY_LONG_SECONDS'] ?? Number.POSITIVE_INFINITY)
const allSubsetsUpTo = Number.isFinite(longMs) ? 8 : 12
const timeoutMs = isLong ? 1_200_000 : 120_000

type SyncOf = 'content' | 'root'

/** What a sync is for: a root is synced alone. */
function syncOf(pending: readonly Change[]): SyncOf | undefined {
  const last = pending.at(-1)
  if (last === undefined) return undefined
  return isRoot(last) ? 'root' : 'content'
}

function isRoot(change: Change | { kind: 'sync' | 'mark' }): boolean {
  return change.kind === 'write' && change.offsetBytes < layout.dataOffsetBytes
}

function without(kind: SyncOf): (pending: readonly Change[]) => SyncFate {
  return (pending) => (syncOf(pending) === kind ? 'ignored' : 'works')
}

function nth(position: number, fate: SyncFate): () => SyncFate {
  let syncs = 0
  return () => (syncs++ === position ? fate : 'works')
}

/** The first of these, and the others while there is time. */
function* asTimeAllows<Item>(items: Iterable<Item>): Generator<Item> {
  const start = performance.now()
  for (const item of items) {
    yield item
    if (performance.now() - start > longMs) return
  }
}

describe('images in a file, after a crash at any moment', () => {
  it(
    'are the old or the new one, whole, while images of up to 64 pages are saved, replaced and removed',
    async () => {
      const seeds = Array.from({ length: isLong ? 20 : 1 }, (_, index) => seed + index)
      for (const seedOfHistory of asTimeAllows(seeds)) {
        const { wrong, states } = await judge(await history({ seed: seedOfHistory, calls: 6 }), {
          seed,
          oneOf,
        })
        expect(wrong, `seed ${seedOfHistory}`).toEqual([])
        expect(states).toBeGreaterThan(500 / oneOf)
      }
    },
    timeoutMs,
  )

  it(
    'are the old or the new one where nodes lie above nodes',
    async () => {
      const file = await newFile()
      const writer = new HistoryWriter(await SmallStore.open(file), file, seed)
      await writer.replace('a', Array<number>(64).fill(1))
      await writer.replace('a', [...Array<number>(67).fill(0), 2])
      await writer.change('a', 3)
      await writer.replace('a', [1])
      expect(
        (await judge(file, { seed, allSubsetsUpTo: isLong ? allSubsetsUpTo : 3, randomChoices: 2, oneOf }))
          .wrong,
        `seed ${seed}`,
      ).toEqual([])
    },
    timeoutMs,
  )

  it.each(['content', 'root'] as const)('are found wrong without the sync of the %s', async (kind) => {
    const file = await history({ seed, calls: 7, fateOfSync: without(kind) })
    expect((await judge(file, { seed })).wrong.length, `seed ${seed}`).toBeGreaterThan(0)
  })

  it(
    'are what the next process found, when one was killed and the machine goes down later',
    async () => {
      const file = await history({ seed, calls: 5 })
      const killed = [...file.log.keys()].filter(
        (at) => isLong || (isRoot(file.log[at]!) ? at % 3 > 0 : at % 17 === 0),
      )
      for (const at of asTimeAllows(killed)) {
        const next = await history({
          seed: seed + 1 + at,
          calls: isLong ? 3 : 1,
          file: file.killedAfter(at + 1),
        })
        const { wrong } = await judge(next, { seed, from: at + 1, allSubsetsUpTo: isLong ? 10 : 5, oneOf })
        expect(wrong, `seed ${seed}, killed after ${at + 1}`).toEqual([])
      }
    },
    timeoutMs,
  )

  it('are found wrong when an opening does not sync before slots are used', async () => {
    let wrongs = 0
    for (let seedOfHistory = seed; seedOfHistory < seed + 3; seedOfHistory++) {
      const file = await history({ seed: seedOfHistory, calls: 5 })
      for (const at of [...file.log.keys()].filter((at) => isRoot(file.log[at]!)).slice(1)) {
        const killed = file.killedAfter(at + 1, nth(0, 'ignored'))
        const next = await history({ seed: seedOfHistory + 1 + at, calls: 1, file: killed })
        wrongs += (await judge(next, { seed, from: at + 1, allSubsetsUpTo: 6 })).wrong.length
      }
      if (wrongs > 0) break
    }
    expect(wrongs, `seed ${seed}`).toBeGreaterThan(0)
  })

  it(
    'are the old or the new one when any sync fails, and stay what the next process found',
    async () => {
      for (const position of asTimeAllows(isLong ? [0, 1, 2, 3, 4, 5, 6, 7, 8] : [1, 2, 4])) {
        const file = await history({ seed, calls: 4, fateOfSync: nth(position, 'fails') })
        const what = `seed ${seed}, sync ${position}`
        expect((await judge(file, { seed, allSubsetsUpTo: 4, oneOf })).wrong, what).toEqual([])
        const from = file.log.length
        const next = await history({
          seed: seed + position,
          calls: isLong ? 3 : 1,
          file: file.killedAfter(from),
        })
        const { wrong } = await judge(next, { seed, from, allSubsetsUpTo: isLong ? 10 : 5, oneOf })
        expect(wrong, `${what}, next process`).toEqual([])
      }
    },
    timeoutMs,
  )
})
