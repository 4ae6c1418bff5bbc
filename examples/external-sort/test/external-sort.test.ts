import { randomFillSync } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { externalSort } from '../src/external-sort.ts'
import { summaryOf } from './summary.ts'

const mebibyte = 2 ** 20

describe('external-sort', () => {
  let directory: string
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'external-sort-'))
  })
  afterAll(() => rm(directory, { recursive: true }))

  async function sort(bytes: Uint8Array, limitBytes: number) {
    const input = join(directory, 'input')
    const output = join(directory, 'output')
    await writeFile(input, bytes)
    const stats = await externalSort(input, output, limitBytes)
    return { stats, before: await summaryOf(input), after: await summaryOf(output), output }
  }

  it('sorts a file of ten times the limit: in order, with the same records, and leaves no scratch file', async () => {
    const { stats, before, after } = await sort(randomFillSync(Buffer.alloc(104_857 * 100)), mebibyte)
    expect(before.sorted).toBe(false)
    expect(after).toEqual({ ...before, sorted: true })
    expect(stats.backedUpPages).toBeGreaterThan(0)
    expect(stats.restoredPages).toBeGreaterThan(0)
    expect((await readdir(directory)).sort()).toEqual(['input', 'output'])
  })

  it('orders records that begin alike by what follows', async () => {
    const bytes = Buffer.alloc(20_000 * 100)
    for (let record = 0; record < 20_000; record++)
      bytes.writeUInt32BE((record * 7919) % 20_000, record * 100 + 90)
    const { after, output } = await sort(bytes, mebibyte)
    expect(after.sorted).toBe(true)
    const sorted = await readFile(output)
    for (let record = 0; record < 20_000; record++)
      expect(sorted.readUInt32BE(record * 100 + 90)).toBe(record)
  })

  it('sorts a file that fits into memory, and an empty one', async () => {
    expect((await sort(randomFillSync(Buffer.alloc(1000)), mebibyte)).after).toMatchObject({
      records: 10,
      sorted: true,
    })
    expect((await sort(Buffer.alloc(0), mebibyte)).after.records).toBe(0)
  })

  it('refuses a file that is not made of records, and a limit that is too little', async () => {
    await expect(sort(Buffer.alloc(150), mebibyte)).rejects.toThrow(RangeError)
    await expect(sort(Buffer.alloc(10 * mebibyte - 60), 64 * 1024)).rejects.toThrow(RangeError)
  })
})
