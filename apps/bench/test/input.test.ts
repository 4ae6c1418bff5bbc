import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { DataLedger } from '../src/case/ledger.ts'
import { loadData, verifyData } from '../src/case/load-and-verify.ts'
import type { BufferStore } from '../src/case/store.ts'
import { listInputFiles } from '../src/input/files.ts'
import { type InputPlan, ItemLayout, planInput } from '../src/input/plan.ts'
import { changeSalt, saltOf, sectorBytes } from '../src/input/salt.ts'
import { SaltedInput, VersionTable, versionedBytes } from '../src/input/salted-input.ts'

const bufferBytes = 256 * 1024
let directory = ''

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bench-input-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

function writeFiles(...lengths: number[]): string[] {
  return lengths.map((length, index) => {
    const path = join(directory, `file-${index}.bin`)
    writeFileSync(path, Buffer.alloc(length, index + 1))
    return path
  })
}

function planOf(wantedBytes: number, seed = 1): InputPlan {
  return planInput({ files: listInputFiles([directory]), wantedBytes, bufferBytes, seed })
}

function readAll(plan: InputPlan, versions = new VersionTable(plan.dataBytes)): Buffer {
  using input = new SaltedInput(new ItemLayout(plan), versions)
  const memory = Buffer.alloc(plan.dataBytes)
  input.read(0, memory)
  return memory
}

/** A store of plain arrays, of which one byte can be changed. */
class PlainStore implements BufferStore {
  readonly buffers: Uint8Array[]
  failing = -1

  constructor(plan: InputPlan) {
    this.buffers = Array.from(
      { length: plan.dataBytes / plan.bufferBytes },
      () => new Uint8Array(plan.bufferBytes),
    )
  }

  async write(buffer: number, offset: number, bytes: Uint8Array): Promise<void> {
    this.buffers[buffer].set(bytes, offset)
  }

  async read(buffer: number, offset: number, into: Uint8Array): Promise<void> {
    const position = buffer * bufferBytes + offset
    if (this.failing >= position && this.failing < position + into.byteLength) throw new Error('lost')
    into.set(this.buffers[buffer].subarray(offset, offset + into.byteLength))
  }

  async touch(): Promise<void> {}
  stats(): unknown {
    return undefined
  }
  async [Symbol.asyncDispose](): Promise<void> {}
}

describe('input files', () => {
  it('lists every file with content once, in order, and follows no link', () => {
    writeFiles(10, 0, 20)
    mkdirSync(join(directory, 'below'))
    writeFileSync(join(directory, 'below', 'inner.bin'), 'inner')
    writeFileSync(join(directory, '.hidden'), 'hidden')
    symlinkSync(join(directory, 'below'), join(directory, 'link'))
    const names = (skipHidden: boolean) =>
      listInputFiles([directory, join(directory, 'file-0.bin')], skipHidden).map(({ path }) =>
        path.slice(directory.length + 1),
      )
    expect(names(false)).toEqual(['.hidden', 'below/inner.bin', 'file-0.bin', 'file-2.bin'])
    expect(names(true)).toEqual(['below/inner.bin', 'file-0.bin', 'file-2.bin'])
  })

  it('names an input that does not exist or holds nothing', () => {
    expect(() => listInputFiles([join(directory, 'nowhere')])).toThrow(/--input '.*nowhere' does not exist/)
    expect(() => listInputFiles([directory])).toThrow('holds no file with content')
  })
})

describe('salted input', () => {
  it('repeats the files until there is enough, and cuts the last one off', () => {
    writeFiles(100_000, 3, 70_001)
    const plan = planOf(bufferBytes + 1)
    const layout = new ItemLayout(plan)
    expect(plan.dataBytes).toBe(2 * bufferBytes)
    expect(plan.distinctBytes).toBe(170_004)
    const lengths = Array.from({ length: layout.itemCount }, (_, item) => layout.lengthOf(item))
    expect(lengths.reduce((sum, length) => sum + length, 0)).toBe(plan.dataBytes)
    expect(lengths.slice(0, 6)).toEqual([100_000, 3, 70_001, 100_000, 3, 70_001])
    for (let item = 0; item < layout.itemCount; item++) {
      expect(layout.itemAt(layout.startOf(item))).toBe(item)
      expect(layout.itemAt(layout.startOf(item) + layout.lengthOf(item) - 1)).toBe(item)
    }
  })

  it('is the same for the same seed, another for another, and real bytes but for the salt', () => {
    const [path] = writeFiles(bufferBytes)
    const first = readAll(planOf(bufferBytes, 1))
    expect(readAll(planOf(bufferBytes, 1)).equals(first)).toBe(true)
    expect(readAll(planOf(bufferBytes, 2)).equals(first)).toBe(false)
    const real = readFileSync(path)
    for (let sector = 0; sector < bufferBytes / sectorBytes; sector++) {
      const start = sector * sectorBytes
      expect(first.readUInt32LE(start)).toBe((real.readUInt32LE(start) ^ saltOf(1, sector, 0)) >>> 0)
      expect(
        first.subarray(start + 4, start + sectorBytes).equals(real.subarray(start + 4, start + sectorBytes)),
      ).toBe(true)
    }
  })

  it('makes every copy of a sector differ', () => {
    writeFiles(bufferBytes)
    const memory = readAll(planOf(8 * bufferBytes))
    const sectors = new Set<string>()
    for (let start = 0; start < memory.byteLength; start += sectorBytes) {
      sectors.add(memory.subarray(start, start + sectorBytes).toString('latin1'))
    }
    expect(sectors.size).toBe(memory.byteLength / sectorBytes)
  })

  it('takes memory from one version to the next in place', () => {
    writeFiles(bufferBytes)
    const plan = planOf(bufferBytes)
    const versions = new VersionTable(plan.dataBytes)
    const memory = readAll(plan, versions)
    changeSalt(memory.subarray(versionedBytes, 2 * versionedBytes), versionedBytes, 0, 1, plan.seed)
    versions.advance(versionedBytes)
    expect(readAll(plan, versions).equals(memory)).toBe(true)
    expect(versions.wasRewritten(0, versionedBytes)).toBe(false)
    expect(versions.wasRewritten(0, versionedBytes + 1)).toBe(true)
  })

  it('notices a file that changed while it ran', () => {
    const [path] = writeFiles(bufferBytes)
    const plan = planOf(bufferBytes)
    utimesSync(path, 1, 1)
    expect(() => readAll(plan)).toThrow(`input file ${path} changed while the bench was running`)
  })
})

describe('verification', () => {
  async function loaded() {
    writeFiles(90_000, 5, 300_001, 4096)
    const plan = planOf(3 * bufferBytes)
    const ledger = new DataLedger(plan)
    const store = new PlainStore(plan)
    const staging = new Uint8Array(65_536)
    const hashes = await loadData(store, ledger, staging, () => {})
    const verify = () => verifyData(store, ledger, hashes, staging, () => {})
    return { plan, ledger, store, verify }
  }

  it('finds everything right, as loaded and after rewriting', async () => {
    const { plan, ledger, store, verify } = await loaded()
    expect(await verify()).toMatchObject({ verifiedBytes: plan.dataBytes, wrongBytes: 0, lostPages: 0 })
    ledger.rewrite(bufferBytes, [
      store.buffers[1].subarray(0, 100 * 1024 - 4096 * 9),
      store.buffers[1].subarray(100 * 1024 - 4096 * 9),
    ])
    ledger.rewrite(2 * bufferBytes + versionedBytes, [
      store.buffers[2].subarray(versionedBytes, 2 * versionedBytes),
    ])
    expect(await verify()).toMatchObject({
      verifiedBytes: plan.dataBytes,
      wrongBytes: 0,
      lostPages: 0,
      errors: [],
    })
    expect(ledger.countMismatches(bufferBytes, [store.buffers[1]])).toBe(0)
  })

  it('counts every wrong byte, and names the file', async () => {
    const { plan, store, verify } = await loaded()
    store.buffers[0][1] ^= 1
    store.buffers[1][77_777] ^= 0x80
    store.buffers[1][77_778] ^= 0xff
    const found = await verify()
    expect(found.wrongBytes).toBe(3)
    expect(found.verifiedBytes).toBeLessThan(plan.dataBytes)
    expect(found.wrongFiles).toContain(join(directory, 'file-0.bin'))
  })

  it('knows an old version from the current one', async () => {
    const { ledger, store, verify } = await loaded()
    const old = store.buffers[1].slice()
    ledger.rewrite(bufferBytes, [store.buffers[1]])
    store.buffers[1].set(old)
    expect(ledger.countMismatches(bufferBytes, [old])).toBe(bufferBytes / 4096)
    expect((await verify()).wrongBytes).toBeGreaterThan(bufferBytes / sectorBytes)
  })

  it('counts pages that cannot be read as lost, not as wrong', async () => {
    const { store, verify } = await loaded()
    store.failing = bufferBytes + 5000
    expect(await verify()).toMatchObject({ wrongBytes: 0, lostPages: 1, errors: ['Error: lost'] })
  })

  it('hashes what was written, not something else', async () => {
    const { plan, store, verify } = await loaded()
    const all = Buffer.concat(store.buffers)
    expect(createHash('sha256').update(all).digest('hex')).toBe(
      createHash('sha256').update(readAll(plan)).digest('hex'),
    )
    expect((await verify()).wrongFiles).toEqual([])
  })
})
