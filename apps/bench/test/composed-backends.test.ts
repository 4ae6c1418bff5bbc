import { tmpdir } from 'node:os'
import { zstdCompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { chooseBackend } from '../src/backends.ts'
import { type DataSet, dataSet, dataSets } from '../src/input/data-sets.ts'

describe('backends made of others', () => {
  it('are opened with the size of each part, and keep what they are given', async () => {
    const { description } = chooseBackend('compressed(tiered(memory:256KiB,encrypted(memory)))')
    await description.load()
    const backup = await description.open({
      capacityBytes: 2 ** 20,
      pageSizeBytes: 4096,
      directory: tmpdir(),
      io: 'auto',
      checksums: true,
      warmBytes: 0,
    })
    expect(await backup.bytesAvailable()).toBe(256 * 1024 + 2 ** 20)
    const bytes = dataSet('records', 2 ** 18)
    const { handles, error } = await backup.backupPages([bytes])
    expect(error).toBeUndefined()
    const copy = new Uint8Array(bytes.byteLength)
    await backup.copyPages(handles, [copy])
    expect(Buffer.compare(copy, bytes)).toBe(0)
    await backup.close()
  })
})

describe('sets of data', () => {
  const shares: Record<DataSet, [number, number]> = {
    'half-zeros': [0.5, 0.52],
    records: [0.1, 0.45],
    text: [0.1, 0.5],
    random: [1, 1.01],
  }
  for (const set of dataSets) {
    it(`are the same in every run, and shrink as they are meant to: ${set}`, () => {
      const bytes = dataSet(set, 2 ** 18)
      expect(Buffer.compare(bytes, dataSet(set, 2 ** 18))).toBe(0)
      const share = zstdCompressSync(bytes).byteLength / bytes.byteLength
      expect(share).toBeGreaterThanOrEqual(shares[set][0])
      expect(share).toBeLessThanOrEqual(shares[set][1])
    })
  }
})
