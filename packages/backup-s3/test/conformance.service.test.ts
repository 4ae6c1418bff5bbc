import type { S3Backup, S3BackupOptions } from '@spillway/backup-s3'
import type { Backup } from '@spillway/core'
import { backupSuite, backupSuites } from '@spillway/core/conformance'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { type S3Target, s3Target } from './harness/index.ts'
import { corruptPage, openOn, pageSizeBytes } from './stores.ts'

let target: S3Target
beforeAll(async () => {
  target = await s3Target()
})
afterAll(() => target.close())

function suiteOptions(name: string, options: Partial<S3BackupOptions>) {
  const prefixes = new WeakMap<Backup, string>()
  return {
    describe,
    it,
    name: `s3, ${name}`,
    async open({ capacityPages }: { capacityPages: number }) {
      const prefix = target.prefix()
      const client = target.client()
      const capacityBytes = capacityPages * pageSizeBytes
      const backup = await openOn(target, { client, prefix, capacityBytes, lingerMs: 0, ...options })
      prefixes.set(backup, prefix)
      return backup
    },
    corrupt: (backup: Backup, handle: number) =>
      corruptPage(target, backup as S3Backup, prefixes.get(backup)!, handle),
  }
}

backupSuites(suiteOptions('scratch', { segmentBytes: 64 * pageSizeBytes }))
backupSuite(suiteOptions('segments of three pages', { segmentBytes: 3 * pageSizeBytes }))
backupSuite(suiteOptions('persistent', { segmentBytes: 16 * pageSizeBytes, persistent: true }))
