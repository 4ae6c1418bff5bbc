import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { S3Backup } from '@spillway/backup-s3'
import { nullBackup } from '@spillway/core'
import { Pool } from '@spillway/pool'
import { s3Target } from '@spillway/test-s3-server'
import { describe, expect, it } from 'vitest'
import { costRows, renewalsPerHour, segmentRequests, tableBytes } from '../documents/sizing.ts'

const MiB = 2 ** 20
const guide = readFileSync(join(import.meta.dirname, '../../docs/guides/sizing-and-cost.md'), 'utf8')

describe('sizing and cost', () => {
  it('the table of the guide is what the formulas give', () => {
    const cells = (row: string) => row.split('|').map((cell) => cell.trim())
    const rows = guide.split('\n').filter((line) => /^\| [\d.]+ [GTP]iB /.test(line))
    expect(rows.map(cells)).toEqual(costRows().map(cells))
  })

  it.each([
    { title: 'whole chunks', maxOrder: 9, dataBytes: 512 * MiB },
    { title: 'single pages', maxOrder: 0, dataBytes: 64 * MiB },
  ])(
    'tables of a pool grow with what is stored as the formula says: $title',
    async ({ maxOrder, dataBytes }) => {
      const backup = nullBackup()
      const pool = new Pool({ limitBytes: 8 * MiB, maxOrder, backup })
      try {
        const buffer = await pool.allocate(dataBytes)
        const before = pool.stats().metadataBytes
        await buffer.fill(1)
        await buffer.backup()
        const grown = pool.stats().metadataBytes - before
        const expected = tableBytes(dataBytes, 4096 * 2 ** maxOrder)
        // What is not the table, records of chunks that were resident, does not grow with the data.
        expect(grown).toBeGreaterThanOrEqual(0)
        expect(pool.stats().metadataBytes).toBeGreaterThanOrEqual(expected)
        expect(pool.stats().metadataBytes).toBeLessThan(1.1 * expected + 256 * 1024)
      } finally {
        await pool.close()
        await backup.close()
      }
    },
  )

  it('a store takes as many requests for whole segments as the formula says', async () => {
    await using target = await s3Target({ embedded: true })
    const client = target.client()
    await using backup = await S3Backup.open({
      client,
      bucket: target.bucket,
      prefix: 'sizing/',
      hedgeShare: 0,
    })
    const pages = new Uint8Array(64 * MiB).fill(1)
    const { handles } = await backup.backupPages([pages])
    await backup.copyPages(handles, [pages])
    const { putsPerGiB, getsPerGiB } = backup.stats().costs
    const perGiB = segmentRequests(1024 * MiB, 8 * MiB)
    expect([putsPerGiB, getsPerGiB]).toEqual([perGiB, perGiB])
    await backup.drop(handles)
  })

  it('a lease of two minutes is renewed ninety times an hour', () => {
    expect(renewalsPerHour(120_000)).toBe(90)
  })
})
