import { afterAll, describe, expect, it } from 'vitest'
import type { Change, LosingFile, SyncFate } from '../losing-file/losing-file.ts'
import { HistoryWriter, history, judge, newFile } from './history.ts'
import { layout, SmallStore } from './small-store.ts'

const seed = Math.floor(Math.random() * 2 ** 32)
/** `npm run test:images:long` looks at more histories, and at more moments at which a process is killed; at all states of each, as here. */
const isLong = process.env['SPILLWAY_LONG'] === '1'
/** Of a process that opens the file after another. */
const callsOfNext = isLong ? 3 : 1
const timeoutMs = isLong ? 600_000 : 120_000

/** Of histories, so many in the long form. */
function seedsOf(long: number, short: number): number[] {
  return Array.from({ length: isLong ? long : short }, (_, index) => seed + index)
}

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

describe('images in a file, after a crash at any moment', () => {
  const looked = { histories: 0, states: 0, differentStates: 0, tornRoots: 0 }

  /** At every state that a crash may leave, after at least `from` entries of the log. */
  async function expectWhole(file: LosingFile, what: string, from = 0): Promise<void> {
    const { wrong, states, differentStates, tornRoots } = await judge(file, { seed, from })
    expect(wrong, what).toEqual([])
    looked.histories++
    looked.states += states
    looked.differentStates += differentStates
    looked.tornRoots += tornRoots
  }

  afterAll(() => {
    const { histories, states, differentStates, tornRoots } = looked
    process.stdout.write(
      `crash states, seed ${seed}: ${states} after ${histories} histories, ${differentStates} that an opening can tell apart, ${tornRoots} with a torn root\n`,
    )
  })

  it(
    'are the old or the new one, whole, while images of up to 64 pages are saved, replaced and removed',
    async () => {
      const before = { ...looked }
      for (const seedOfHistory of seedsOf(300, 2))
        await expectWhole(await history({ seed: seedOfHistory, calls: 6 }), `seed ${seedOfHistory}`)
      expect(looked.states - before.states).toBeGreaterThan(1000)
      expect(looked.tornRoots).toBeGreaterThan(before.tornRoots)
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
      await expectWhole(file, `seed ${seed}`)
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
      for (const seedOfHistory of seedsOf(8, 1)) {
        const file = await history({ seed: seedOfHistory, calls: 5 })
        for (const at of file.log.keys()) {
          if (!isLong && (isRoot(file.log[at]!) ? at % 3 === 0 : at % 17 !== 0)) continue
          const killedFile = file.killedAfter(at + 1)
          const next = await history({ seed: seedOfHistory + 1 + at, calls: callsOfNext, file: killedFile })
          await expectWhole(next, `seed ${seedOfHistory}, killed after ${at + 1}`, at + 1)
        }
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
        wrongs += (await judge(next, { seed, from: at + 1 })).wrong.length
      }
      if (wrongs > 0) break
    }
    expect(wrongs, `seed ${seed}`).toBeGreaterThan(0)
  })

  it(
    'are the old or the new one when any sync fails, and stay what the next process found',
    async () => {
      for (const seedOfHistory of seedsOf(8, 1)) {
        for (const position of isLong ? [0, 1, 2, 3, 4, 5, 6, 7, 8] : [1, 2, 4]) {
          const file = await history({ seed: seedOfHistory, calls: 4, fateOfSync: nth(position, 'fails') })
          const what = `seed ${seedOfHistory}, sync ${position}`
          await expectWhole(file, what)
          const from = file.log.length
          const killedFile = file.killedAfter(from)
          const next = await history({ seed: seedOfHistory + position, calls: callsOfNext, file: killedFile })
          await expectWhole(next, `${what}, next process`, from)
        }
      }
    },
    timeoutMs,
  )
})
