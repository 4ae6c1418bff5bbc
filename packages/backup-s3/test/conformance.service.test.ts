import { pageHttpHandler, type S3Backup, type S3BackupOptions } from '@spillway/backup-s3'
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

function suiteOptions(name: string, options: () => Partial<S3BackupOptions>) {
  const prefixes = new WeakMap<Backup, string>()
  return {
    describe,
    it,
    name: `s3, ${name}`,
    async open({ capacityPages }: { capacityPages: number }) {
      const prefix = target.prefix()
      const client = target.client()
      const capacityBytes = capacityPages * pageSizeBytes
      const backup = await openOn(target, { client, prefix, capacityBytes, lingerMs: 0, ...options() })
      prefixes.set(backup, prefix)
      return backup
    },
    corrupt: (backup: Backup, handle: number) =>
      corruptPage(target, backup as S3Backup, prefixes.get(backup)!, handle),
  }
}

// The states of the contract are run in full on the plain store; the wrappers and the other ways of storing share what
// is left of the time. `SPILLWAY_LONG=1` runs every suite on every way.
const ways: Record<string, () => Partial<S3BackupOptions>> = {
  'persistent, with pageHttpHandler()': () => ({
    segmentBytes: 64 * pageSizeBytes,
    persistent: true,
    client: target.client({ requestHandler: pageHttpHandler() }),
  }),
  'segments of three pages': () => ({ segmentBytes: 3 * pageSizeBytes }),
}
const isLong = process.env['SPILLWAY_LONG'] === '1'
backupSuites(suiteOptions('scratch', () => ({ segmentBytes: 64 * pageSizeBytes })))
for (const [name, way] of Object.entries(ways).slice(0, isLong ? 2 : 1)) {
  if (isLong) backupSuites(suiteOptions(name, way))
  else backupSuite(suiteOptions(name, way))
}
