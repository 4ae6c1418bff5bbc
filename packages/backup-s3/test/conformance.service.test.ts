import type { S3Client } from '@aws-sdk/client-s3'
import { pageHttpHandler, type S3Backup, type S3BackupOptions } from '@spillway/backup-s3'
import type { Backup } from '@spillway/core'
import { backupSuite, backupSuites, faultyBackupSuite, sharedBackupSuite } from '@spillway/core/conformance'
import { hasConditionalWrites, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { corruptPage, openOn, pageSizeBytes } from './stores.ts'

let target: S3Target
beforeAll(async () => {
  target = await s3Target()
})
afterAll(() => target.close())

function suiteOptions(name: string, options: () => Partial<S3BackupOptions>) {
  const prefixes = new WeakMap<Backup, string>()
  // One client for all of them, as applications do; each would open connections of its own.
  let client: S3Client | undefined
  let chosen: Partial<S3BackupOptions> | undefined
  return {
    describe,
    it,
    name: `s3, ${name}`,
    async open({ capacityPages }: { capacityPages: number }) {
      const prefix = target.prefix()
      client ??= target.client()
      chosen ??= options()
      const capacityBytes = capacityPages * pageSizeBytes
      const backup = await openOn(target, { client, prefix, capacityBytes, lingerMs: 0, ...chosen })
      prefixes.set(backup, prefix)
      return backup
    },
    corrupt: (backup: Backup, handle: number) =>
      corruptPage(target, backup as S3Backup, prefixes.get(backup)!, handle),
  }
}

const ways: Record<string, () => Partial<S3BackupOptions>> = {
  scratch: () => ({ segmentBytes: 64 * pageSizeBytes }),
  'with pageHttpHandler()': () => ({
    segmentBytes: 64 * pageSizeBytes,
    client: target.client({ requestHandler: pageHttpHandler() }),
  }),
  // Where nobody can own a store, scratch takes its part.
  persistent: () => ({ segmentBytes: 48 * pageSizeBytes, persistent: hasConditionalWrites() }),
  'segments of three pages': () => ({ segmentBytes: 3 * pageSizeBytes }),
}

// Everything the suite knows is run once, each part of it on another way of storing. `SPILLWAY_LONG=1` runs every part on
// every way.
if (process.env['SPILLWAY_LONG'] === '1') {
  for (const [name, way] of Object.entries(ways)) backupSuites(suiteOptions(name, way))
} else {
  backupSuite(suiteOptions('scratch', ways['scratch']))
  faultyBackupSuite(suiteOptions('with pageHttpHandler()', ways['with pageHttpHandler()']))
  sharedBackupSuite(suiteOptions('persistent', ways['persistent']))
}
