import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { describe, expect, it } from 'vitest'
import { drivePool } from '../src/policy/drive-pool.ts'
import { missedGoals, renderTraces, type TraceOutcome } from '../src/policy/outcome.ts'
import { type SimulatorName, simulate, simulatorNames, simulators } from '../src/policy/simulators.ts'
import { assertTrace, type Trace } from '../src/policy/trace.ts'
import { readTrace } from '../src/policy/trace-file.ts'
import { makeTrace, traceKinds } from '../src/policy/traces.ts'
import { parsePolicyOptions, policyCommand } from '../src/policy-command.ts'

/** A trace of reads; capital letters are writes. */
function traceOf(accesses: string): Trace {
  const pages = [...accesses].map((letter) => letter.toLowerCase().charCodeAt(0) - 97)
  return {
    name: accesses,
    bufferPages: [26],
    pages: Uint32Array.from(pages),
    writes: Uint8Array.from([...accesses], (letter) => (letter < 'a' ? 1 : 0)),
  }
}

function loopOf(pageCount: number, accesses: number): Trace {
  const pages = Uint32Array.from({ length: accesses }, (_, index) => index % pageCount)
  return { name: 'loop', bufferPages: [pageCount], pages, writes: new Uint8Array(accesses) }
}

/** What leaves, in order, and which accesses hit. */
function follow(
  name: SimulatorName,
  accesses: string,
  capacityPages: number,
): { left: string; hits: string } {
  const trace = traceOf(accesses)
  let left = ''
  const cache = simulators[name](capacityPages, trace, (page) => {
    left += String.fromCharCode(97 + page)
  })
  const hits = [...accesses].filter((_, index) => cache.access(trace.pages[index], index)).join('')
  return { left, hits }
}

const kindNamed = (name: string) => traceKinds.find((kind) => kind.name === name)!

describe('simulators', () => {
  it('have the faults that textbooks print for the reference string of Belady’s anomaly examples', () => {
    // Silberschatz, Operating System Concepts, page replacement: 20 references, three frames: LRU 12 faults, OPT 9.
    const string = '70120304230321201701'
    const letters = [...string].map((digit) => String.fromCharCode(97 + Number(digit))).join('')
    expect(letters.length - follow('lru', letters, 3).hits.length).toBe(12)
    expect(letters.length - follow('min', letters, 3).hits.length).toBe(9)
  })

  it('hit on loops as closed forms say: LRU all or nothing, MIN (C − 1) / (N − 1)', () => {
    const [capacity, pageCount] = [100, 150]
    const trace = loopOf(pageCount, 150 * 300)
    const rate = (name: SimulatorName, capacityPages: number) =>
      simulate(simulators[name], trace, capacityPages, 3000).hitRate
    expect(rate('lru', pageCount - 1)).toBe(0)
    expect(rate('lru', pageCount)).toBe(1)
    expect(rate('sieve', pageCount)).toBe(1)
    expect(rate('s3-fifo', pageCount)).toBe(1)
    expect(rate('min', capacity)).toBeCloseTo((capacity - 1) / (pageCount - 1), 2)
  })

  it('LRU hits independent zipf references as often as Che’s approximation says', () => {
    for (const [skew, name] of [
      [0.8, 'zipf-0.8'],
      [0.99, 'zipf-0.99'],
    ] as const) {
      const capacityPages = 256
      const trace = makeTrace(kindNamed(name), { capacityPages, accesses: 200_000, seed: 7 })
      const weights = Array.from({ length: 4 * capacityPages }, (_, rank) => (rank + 1) ** -skew)
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      const shares = weights.map((weight) => weight / total)
      // The characteristic time T: as many pages as fit are used within it.
      const used = (time: number) => shares.reduce((sum, share) => sum + 1 - Math.exp(-share * time), 0)
      let [low, high] = [0, 1e6]
      for (let step = 0; step < 60; step++) {
        const middle = (low + high) / 2
        if (used(middle) < capacityPages) low = middle
        else high = middle
      }
      const expected = shares.reduce((sum, share) => sum + share * (1 - Math.exp(-share * low)), 0)
      const { hitRate } = simulate(simulators.lru, trace, capacityPages, 5 * capacityPages)
      expect(Math.abs(hitRate - expected), `${name}: ${hitRate} and ${expected}`).toBeLessThan(0.006)
    }
  })

  it('SIEVE leaves a used page where it is, and goes on from its hand', () => {
    // The hand passes a, which was used, takes b, then c, then d, which came in meanwhile; FIFO with reinsertion would take a then.
    expect(follow('sieve', 'abcadefa', 3)).toEqual({ left: 'bcd', hits: 'aa' })
    // Used twice or once is the same, and the mark is gone once the hand has passed. From the newest it goes back to the oldest.
    expect(follow('sieve', 'abaacdef', 2)).toEqual({ left: 'bacd', hits: 'aa' })
  })

  it('S3-FIFO drops what was used once, keeps what was used more, and remembers what it dropped', () => {
    // Ten pages fit, one of them in the small queue: a was used twice again, so it goes to the main queue; others leave.
    const { left, hits } = follow('s3-fifo', 'aaabcdefghijklmnopqa', 10)
    expect(hits).toBe('aaa')
    expect(left).toBe('bcdefgh')
    // b comes back while it is remembered: to the main queue, where new pages do not drive it out.
    expect(follow('s3-fifo', 'abcdefghijklabmnopqrstab', 10).hits).toBe('ab')
    // A single use in the small queue is not enough.
    expect(follow('s3-fifo', 'aabcdefghijk', 10).left[0]).toBe('a')
  })

  it('S3-FIFO and SIEVE keep a set beside a scan where LRU loses a third of it, as published', () => {
    const capacityPages = 256
    const trace = makeTrace(kindNamed('hot-set-beside-scan'), {
      capacityPages,
      accesses: 40 * capacityPages,
      seed: 3,
    })
    const rate = (name: SimulatorName) =>
      simulate(simulators[name], trace, capacityPages, 5 * capacityPages).hitRate
    expect(rate('s3-fifo')).toBeGreaterThan(0.485)
    expect(rate('sieve')).toBeGreaterThan(0.485)
    expect(rate('lru')).toBeLessThan(0.4)
  })

  it('MIN is never worse than another', () => {
    const capacityPages = 64
    for (const kind of traceKinds) {
      const trace = makeTrace(kind, { capacityPages, accesses: 40 * capacityPages, seed: 11 })
      const rates = simulatorNames.map((name) => simulate(simulators[name], trace, capacityPages, 0).hitRate)
      const min = rates[simulatorNames.indexOf('min')]
      for (const rate of rates) expect(rate, kind.name).toBeLessThanOrEqual(min)
    }
  })

  it('count a store for each page that was written to and leaves', () => {
    // A leaves dirty, b clean; A again, which is clean now; c dirty.
    const trace = traceOf('AbcdaCbda')
    expect(simulate(simulators.lru, trace, 2, 0)).toEqual({ hitRate: 0, backupWrites: 2 })
    // What left during the first four accesses is not counted.
    expect(simulate(simulators.lru, trace, 2, 4).backupWrites).toBe(1)
  })
})

describe('traces', () => {
  it.each(traceKinds.map((kind) => [kind.name, kind] as const))(
    '%s: the same for the same seed, and within its buffers',
    (_, kind) => {
      const shape = { capacityPages: 64, accesses: 5000, seed: 5 }
      const trace = makeTrace(kind, shape)
      expect(makeTrace(kind, shape)).toEqual(trace)
      assertTrace(trace)
      expect(trace.pages).toHaveLength(5000)
    },
  )

  it('write where they say: like the reads, on every tenth page only, and elsewhere', () => {
    const shape = { capacityPages: 64, accesses: 20_000, seed: 5 }
    const written = (name: string) => {
      const { pages, writes } = makeTrace(kindNamed(name), shape)
      return [...pages].filter((_, index) => writes[index] === 1)
    }
    expect(written('zipf-0.99').length / 20_000).toBeCloseTo(0.1, 1)
    expect(new Set(written('zipf-0.99')).size).toBeGreaterThan(200)
    expect(written('zipf-0.99-tenth').every((page) => page % 10 === 0)).toBe(true)
    expect(written('zipf-0.99-elsewhere').every((page) => page >= 256)).toBe(true)
  })

  it('refuse to be empty, or to leave their buffers', () => {
    expect(() => assertTrace(traceOf(''))).toThrow('is empty')
    expect(() => assertTrace({ ...traceOf('abc'), bufferPages: [2] })).toThrow('page 2')
    expect(() => assertTrace({ ...traceOf('abc'), writes: new Uint8Array(2) })).toThrow('3 accesses')
  })
})

describe('a trace from a file', () => {
  it('is read line by line, and a line that is none is named', () => {
    const directory = mkdtempSync(join(tmpdir(), 'policy-'))
    try {
      const path = join(directory, 'mine.trace')
      const read = (text: string) => {
        writeFileSync(path, text)
        return readTrace(path)
      }
      const trace = read('r 3\nw 0\n\n r 3 \n')
      expect([...trace.pages]).toEqual([3, 0, 3])
      expect([...trace.writes]).toEqual([0, 1, 0])
      expect(trace).toMatchObject({ name: 'mine.trace', bufferPages: [4] })
      expect(() => read('')).toThrow('is empty')
      expect(() => read('r 1\nx 2\n')).toThrow("line 2 is 'x 2'")
      expect(() => read('r -1\n')).toThrow('line 1')
      expect(() => read(`r ${2 ** 40}\n`)).toThrow('line 1')
      expect(() => readTrace(join(directory, 'none'))).toThrow('ENOENT')
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

describe('the pool on a trace', () => {
  const { signal } = new AbortController()

  it('is counted by restores: a set that fits always hits, new pages never do', async () => {
    const shape = { capacityPages: 32, chunkPages: 1, background: false }
    expect(await drivePool(loopOf(16, 1000), shape, 200, signal)).toEqual({ hitRate: 1, backupWrites: 0 })
    expect((await drivePool(loopOf(400, 400), shape, 100, signal)).hitRate).toBe(0)
  })

  it('is counted in pages of the trace where each is a chunk of several, and ends with the signal', async () => {
    const shape = { capacityPages: 16, chunkPages: 4, background: true }
    const trace = loopOf(160, 160)
    trace.writes.fill(1)
    const { hitRate, backupWrites } = await drivePool(trace, shape, 0, signal)
    expect(hitRate).toBe(0)
    expect(backupWrites).toBeGreaterThan(100)
    expect(backupWrites).toBeLessThanOrEqual(160)
    await expect(drivePool(trace, shape, 0, AbortSignal.abort(new Error('stop')))).rejects.toThrow('stop')
  })
})

describe('the table', () => {
  const good = { hitRate: 0.7, backupWrites: 100 }
  const others = { lru: good, sieve: good, 's3-fifo': good, min: { hitRate: 0.9, backupWrites: 100 } }
  const outcome = (pool: Partial<typeof good>, isLoop = false): TraceOutcome => ({
    trace: 'hot-set-beside-writer',
    isLoop,
    pool: { ...good, ...pool },
    simulated: others,
  })

  it('holds the pool against the best of the others, half of the optimum on loops, and the writes of LRU', () => {
    expect(missedGoals(outcome({}))).toEqual([])
    expect(missedGoals(outcome({ hitRate: 0.6905, backupWrites: 105 }))).toEqual([])
    expect(missedGoals(outcome({ hitRate: 0.6895, backupWrites: 106 }))).toEqual(['hits', 'writes'])
    expect(missedGoals(outcome({ hitRate: 0.44 }, true))).toEqual(['hits', 'loop'])
    expect(missedGoals({ ...outcome({ hitRate: 0.1, backupWrites: 999 }), simulated: {} })).toEqual([])
  })

  it('fits 80 columns with seven digits of stores', () => {
    const many = { hitRate: 0.1, backupWrites: 1_234_567 }
    const bad = {
      ...outcome(many, true),
      simulated: { ...others, lru: { ...good, backupWrites: 9_999_999 } },
    }
    const text = stripVTControlCharacters(renderTraces([outcome(many, true), bad], simulatorNames))
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
  })
})

describe('the command', () => {
  const given = {
    trace: 'loop-0.9',
    policy: 'lru',
    pages: '16',
    length: '20',
    chunkPages: '1',
    seed: '1',
    background: false,
    json: false,
  }

  it('refuses what it does not know, and what makes no trace', async () => {
    expect(() => parsePolicyOptions({ ...given, policy: 'lru,fifo' })).toThrow("--policy 'fifo' is unknown")
    expect(() => parsePolicyOptions({ ...given, policy: '' })).toThrow("--policy '' is unknown")
    expect(() => parsePolicyOptions({ ...given, trace: 'loop' })).toThrow("--trace 'loop' is unknown")
    expect(() => parsePolicyOptions({ ...given, chunkPages: '3' })).toThrow('not a power of two')
    expect(() => parsePolicyOptions({ ...given, pages: '8' })).toThrow('--pages')
    const { signal } = new AbortController()
    await expect(policyCommand({ ...given, length: '0' }, signal)).rejects.toThrow('is empty')
    await expect(policyCommand({ ...given, length: '5' }, signal)).rejects.toThrow('only warm up')
  })

  it('follows a trace and is content when all goals are met', async () => {
    expect(await policyCommand(given, new AbortController().signal)).toBe(0)
  })
})
