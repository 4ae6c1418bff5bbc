import { randomFillSync } from 'node:crypto'
import { S3Backup, type S3BackupOptions } from '@spillway/backup-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type S3Target, s3Target } from './harness/index.ts'

let target: S3Target
beforeAll(async () => {
  target = await s3Target()
})
afterAll(() => target.close())

const pageSizeBytes = 4096

function randomPages(pages: number): Buffer {
  return randomFillSync(Buffer.alloc(pages * pageSizeBytes))
}

async function open(options: Partial<S3BackupOptions> = {}) {
  const prefix = target.prefix()
  const backup = await S3Backup.open({ client: target.client(), bucket: target.bucket, prefix, ...options })
  return { backup, prefix }
}

describe('round trips on a service', () => {
  for (const pages of [1, 2, 255, 256, 257, 2048, 2049]) {
    it(`T3: ${pages} pages come back unchanged, twice`, async () => {
      const { backup, prefix } = await open({ segmentBytes: 256 * pageSizeBytes })
      const content = randomPages(pages)
      const { handles, error } = await backup.backupPages([content])
      expect(error).toBeUndefined()
      for (let round = 0; round < 2; round++) {
        const copy = Buffer.alloc(content.length)
        expect(await backup.copyPages(handles, [copy])).toEqual({ copied: pages })
        expect(copy.equals(content)).toBe(true)
      }
      await backup.drop(handles)
      await backup.close()
      expect(await target.list(prefix)).toEqual([])
    })
  }
})
