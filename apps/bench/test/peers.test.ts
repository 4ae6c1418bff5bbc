import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Turns } from '../src/case/turns.ts'
import { comparedSubjects, missingPeerNotes, peerFigures } from '../src/peers/outcome.ts'
import type { PeerSettings } from '../src/peers/peer-settings.ts'
import { peers } from '../src/peers/registry.ts'
import { SwappedMemory } from '../src/peers/swapped-memory.ts'
import { UnitCache, type UnitStore } from '../src/peers/unit-cache.ts'
import { Random } from '../src/random.ts'
import { renderReport } from '../src/report/page.ts'
import { renderTables } from '../src/table.ts'
import { madeUpCase, madeUpRun } from './made-up-run.ts'

const bufferBytes = 256 * 1024
const bufferCount = 6
const seed = 7
let directory = ''

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bench-peers-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

function settingsOf(unitBytes: number): PeerSettings {
  const limitBytes = Math.max(2 * unitBytes, bufferBytes)
  return { directory, limitBytes, bufferBytes, bufferCount, unitBytes, packageDirectory: undefined }
}

/** Units in arrays; `failing` says which cannot be stored. */
class PlainUnits implements UnitStore {
  readonly units = new Map<number, Uint8Array>()
  readonly #busy = new Set<number>()
  failing = -1
  loads = 0

  async load(unit: number, memory: Uint8Array): Promise<void> {
    this.loads++
    await this.#alone(unit)
    memory.set(this.units.get(unit)!)
  }

  async store(unit: number, memory: Uint8Array): Promise<void> {
    await this.#alone(unit)
    if (unit === this.failing) throw new Error('no room')
    this.units.set(unit, memory.slice())
  }

  close(): void {}

  async #alone(unit: number): Promise<void> {
    expect(this.#busy.has(unit), `calls for unit ${unit} overlap`).toBe(false)
    this.#busy.add(unit)
    await new Promise((resolve) => setImmediate(resolve))
    this.#busy.delete(unit)
  }
}

const builtIn = peers.filter(({ npmPackage, swap }) => npmPackage === undefined && swap === undefined)
const openers = [
  ...builtIn.map(({ name, open }) => [name, open] as const),
  ['units in arrays', async (settings: PeerSettings) => new UnitCache(new PlainUnits(), settings)] as const,
  ['swap', async (settings: PeerSettings) => new SwappedMemory(settings)] as const,
]

describe.each(openers)('peer %s', (_name, open) => {
  it.each([4096, 65_536, bufferBytes])(
    `gives back what was written with units of %i bytes, many calls at a time (seed ${seed})`,
    async (unitBytes) => {
      const random = new Random(seed)
      const expected = new Uint8Array(bufferBytes * bufferCount)
      await using store = await open(settingsOf(unitBytes))
      let wrong = 0
      const work = async (worker: number) => {
        for (let step = 0; step < 60; step++) {
          // Each worker has its own bytes of every unit, or what is expected would depend on who comes first.
          const unit = random.below(expected.length / unitBytes)
          const position = unit * unitBytes + worker * 512
          const [buffer, offset] = [Math.floor(position / bufferBytes), position % bufferBytes]
          const mine = expected.subarray(position, position + 512)
          if (random.below(2) === 0) {
            mine.fill(random.below(256))
            await store.write(buffer, offset, mine.slice())
          } else {
            const write = random.below(2) === 0
            const next = random.below(256)
            await store.touch({ buffer, offsetBytes: offset, lengthBytes: 512, write }, ([memory]) => {
              if (Buffer.compare(memory, mine) !== 0) wrong++
              if (write) memory.fill(next)
            })
            if (write) mine.fill(next)
          }
        }
      }
      await Promise.all(Array.from({ length: 8 }, (_, worker) => work(worker)))
      expect(wrong).toBe(0)
      const whole = new Uint8Array(bufferBytes)
      for (let buffer = 0; buffer < bufferCount; buffer++) {
        await store.read(buffer, 0, whole)
        const right = expected.subarray(buffer * bufferBytes, (buffer + 1) * bufferBytes)
        expect(Buffer.compare(whole, right), `buffer ${buffer}`).toBe(0)
      }
    },
  )
})

describe('the cache of the peers', () => {
  it('keeps what was used last, and writes nothing that did not change', async () => {
    const units = new PlainUnits()
    await using cache = new UnitCache(units, { ...settingsOf(65_536), limitBytes: 2 * 65_536 })
    const memory = new Uint8Array(65_536)
    for (const unit of [0, 1, 0, 2]) await cache.read(0, unit * 65_536, memory)
    // Unit 1 was the one used longest ago.
    expect(cache.stats()).toEqual({ loads: 0, stores: 0, residentUnits: 2 })
    await cache.write(0, 0, new Uint8Array(65_536).fill(9))
    for (const unit of [1, 2, 0]) await cache.read(0, unit * 65_536, memory)
    expect(memory[0]).toBe(9)
    expect(cache.stats()).toEqual({ loads: 1, stores: 1, residentUnits: 2 })
  })

  it('tells of a unit that could not be stored, again and again, and never makes one up', async () => {
    const units = new PlainUnits()
    units.failing = 0
    await using cache = new UnitCache(units, { ...settingsOf(65_536), limitBytes: 2 * 65_536 })
    await cache.write(0, 0, new Uint8Array(65_536).fill(1))
    const memory = new Uint8Array(65_536)
    await cache.read(0, 65_536, memory)
    await expect(cache.read(0, 2 * 65_536, memory)).rejects.toThrow('no room')
    await expect(cache.read(0, 0, memory)).rejects.toThrow('no room')
  })
})

describe('turns', () => {
  it('come one at a time, in the order in which they are asked for', async () => {
    const turns = new Turns()
    const seen: string[] = []
    let running = 0
    const rounds = async (name: string) => {
      for (let round = 0; round < 3; round++) {
        const end = await turns.take()
        expect(++running).toBe(1)
        seen.push(`${name}${round}`)
        await new Promise((resolve) => setImmediate(resolve))
        running--
        end()
      }
    }
    await Promise.all([rounds('a'), rounds('b'), rounds('c')])
    expect(seen).toEqual(['a0', 'b0', 'c0', 'a1', 'b1', 'c1', 'a2', 'b2', 'c2'])
  })
})

describe('the table of peers', () => {
  const run = {
    ...madeUpRun([
      madeUpCase('file', 'random', [2e9]),
      madeUpCase('file', 'pages-4', [40_960_000]),
      madeUpCase('peer:lmdb', 'random', [1e9], { eventLoopDelayP99Ms: 33 }),
    ]),
    missingPeers: [{ name: 'zram', reason: 'this kernel has <no> zram' }],
  }

  it('has a row for each backend and peer, rates and event-loop delays, and says who is missing and why', () => {
    expect(comparedSubjects(run)).toEqual(['file', 'peer:lmdb'])
    expect(peerFigures(run).map(({ title }) => title)).toEqual([
      'whole buffers, GB/s',
      'loop p99, ms',
      'pages, 4 deep, thousand/s',
      'loop p99, ms',
    ])
    expect(peerFigures(run).map(({ value }) => value(run, 'file'))).toEqual([2, 2, 10, 2])
    expect(peerFigures(run).map(({ value }) => value(run, 'peer:lmdb'))).toEqual([
      1,
      33,
      undefined,
      undefined,
    ])
    expect(missingPeerNotes(run)).toEqual(['peer zram was not measured: this kernel has <no> zram'])
    expect(renderTables(run)).toContain('peer zram was not measured: this kernel has <no> zram')
    expect(renderReport(run)).toContain('peer zram was not measured: this kernel has &lt;no&gt; zram')
    expect(renderReport(run)).toContain('download="peers.csv"')
  })

  it('is not there where no peers were asked for', () => {
    expect(comparedSubjects(madeUpRun([madeUpCase('file', 'random', [2e9])]))).toEqual([])
  })
})
