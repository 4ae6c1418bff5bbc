import { memoryBackup } from '@spillway/core'
import { backupSuite } from '@spillway/core/conformance'
import { describe, expect, it } from 'vitest'
import { contentOf } from './content.ts'

// Before anything asks for native code: this file has a process of its own.
process.env['SPILLWAY_DISABLE_NATIVE'] = '1'
const { compressedBackup } = await import('../src/index.ts')

backupSuite({
  describe,
  it,
  name: 'compressed memory, by node:zlib',
  open: async ({ capacityPages }) => compressedBackup(memoryBackup({ capacityBytes: capacityPages * 4096 })),
})

it('says that node:zlib does the work where native code is switched off', async () => {
  await using backup = compressedBackup(memoryBackup())
  const half = contentOf('half', 1, 64)
  const { handles } = await backup.backupPages([half])
  expect(backup.stats().codec).toBe('zstd (node:zlib)')
  const into = new Uint8Array(half.byteLength)
  await backup.copyPages(handles, [into])
  expect(into).toEqual(half)
})
