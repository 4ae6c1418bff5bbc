import { describe, expect, it } from 'vitest'
import { Random } from '../src/random.ts'
import { ExpectedPages } from '../src/soak/expected.ts'
import { floorOf, MemoryTrendWatcher, slopeOf } from '../src/soak/memory-trend.ts'
import { drawOperation, emptyTally, type SoakTally } from '../src/soak/operations.ts'
import { runStage } from '../src/soak/stage.ts'
import { parseSoakOptions } from '../src/soak-command.ts'

const mebibyte = 1024 ** 2

function soak(backend: string, faults: boolean): Promise<SoakTally> {
  const tally = emptyTally()
  return runStage({
    backend,
    limitBytes: 8 * mebibyte,
    overcommit: 3,
    durationMs: 500,
    faults,
    seed: 7,
    directory: '/tmp',
    signal: new AbortController().signal,
    tally,
  }).then(() => tally)
}

describe('soak', () => {
  it('finds every byte in its place under faults, and nothing left behind', async () => {
    const tally = await soak('memory', true)
    expect(tally).toMatchObject({ wrongBytes: 0, problems: [] })
    expect(tally.verifiedBytes).toBeGreaterThanOrEqual(24 * mebibyte)
  })

  it('counts the bytes that a spoiled backup returns wrong', async () => {
    const tally = await soak('memory+flip', false)
    expect(tally.wrongBytes).toBeGreaterThan(0)
    expect(tally.problems[0]).toContain('wrong bytes')
  })

  it('says nothing of memory after less than four minutes, in which it settles', () => {
    let nowMs = 0
    using watcher = new MemoryTrendWatcher(() => nowMs)
    nowMs = 3.9 * 60_000
    expect(watcher.trend().flat).toBe(null)
    nowMs = 4 * 60_000
    expect(watcher.trend().flat).toBe(true)
  })

  it('knows pages by place and version, and counts wrong bytes one by one', () => {
    const expected = new ExpectedPages(4, 1)
    const memory = new Uint8Array(2 * 4096)
    expect(expected.countWrong(4096, memory)).toBe(0)
    expected.rewrite(1, memory)
    expect(expected.countWrong(4096, memory)).toBe(0)
    expect(expected.countWrong(4096 + 100, memory.subarray(100, 5000))).toBe(0)
    memory[5] ^= 1
    memory[5000] ^= 1
    expect(expected.countWrong(4096, memory)).toBe(2)
    // What was given up is zeros from then on, and nothing else counts as given up.
    expected.forgetZeros(1, new Uint8Array(4096))
    expected.forgetZeros(2, new Uint8Array(4096).fill(1))
    expect([...expected.versions]).toEqual([0, 0, 1, 0])
    expected.versions[1] = 1
    // In another place, in another version, in another buffer: almost all bytes differ.
    const page = memory.slice(4096 + 1000)
    expect(expected.countWrong(1000, page)).toBeGreaterThan(2900)
    expected.rewrite(2, new Uint8Array(4096))
    expect(expected.countWrong(2 * 4096 + 1000, page)).toBeGreaterThan(2900)
  })

  it('draws every operation, and fits a line through samples', () => {
    const random = new Random(1)
    const drawn = new Set(Array.from({ length: 2000 }, () => drawOperation(random)))
    expect(drawn.size).toBe(11)
    expect(
      slopeOf([
        [0, 5],
        [1, 7],
        [2, 9],
      ]),
    ).toBeCloseTo(2)
    expect(slopeOf([[1, 1]])).toBe(0)
  })

  it('takes for the floor of memory what it falls back to, not what is there between collections', () => {
    const sawtooth = (floor: number, tooth: number) =>
      Array.from({ length: 200 }, (_, index) => floor + (index % 20) * tooth)
    // The median is 90 higher.
    expect(floorOf(sawtooth(300, 10)) - floorOf(sawtooth(300, 1))).toBeLessThan(20)
    expect(floorOf(sawtooth(350, 10)) - floorOf(sawtooth(300, 10))).toBe(50)
    expect(floorOf([])).toBe(0)
  })

  it('understands its options, and refuses others', () => {
    const good = {
      minutes: '0.5',
      overcommit: '2..10',
      backend: 'file',
      limit: '64MiB',
      seed: '3',
      json: false,
    }
    expect(parseSoakOptions(good)).toMatchObject({
      durationMs: 30_000,
      overcommits: [2, 4, 6, 8, 10],
      seed: 3,
    })
    expect(parseSoakOptions({ ...good, overcommit: '4' }).overcommits).toEqual([4])
    for (const [change, message] of [
      [{ minutes: '0' }, "--minutes '0'"],
      [{ overcommit: '10..2' }, "--overcommit '10..2'"],
      [{ overcommit: '..' }, "--overcommit '..'"],
      [{ seed: 'x' }, "--seed 'x'"],
      [{ limit: '1MiB' }, "--limit '1MiB'"],
      [{ backend: 'floppy' }, "--backend 'floppy'"],
    ] as const) {
      expect(() => parseSoakOptions({ ...good, ...change })).toThrow(message)
    }
  })
})
