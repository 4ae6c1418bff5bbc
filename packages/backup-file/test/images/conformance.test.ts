import { join } from 'node:path'
import type { Backup } from '@spillway/core'
import { backupSuite } from '@spillway/core/conformance'
import { available } from '@spillway/native'
import { describe, it } from 'vitest'
import { type FileBackupOptions, openFileBackup } from '../../src/index.ts'
import { mappedMemory } from '../mapped-memory.ts'
import { scratchDirectory } from '../places.ts'

const directory = scratchDirectory()
const openings = new WeakMap<Backup, FileBackupOptions>()
let files = 0

async function openWith(options: FileBackupOptions): Promise<Backup> {
  const backup = await openFileBackup(options)
  openings.set(backup, options)
  return backup
}

const ways: Partial<FileBackupOptions>[] = [{ io: 'threads', direct: false }]
if (available().ioUring) ways.push({ io: 'uring', direct: 'auto' })

for (const way of ways) {
  backupSuite({
    describe,
    it,
    name: `persistent file (${way.io})`,
    startsCopies: true,
    memory: mappedMemory,
    open: ({ capacityPages }) => {
      const path = join(directory, `store-${files++}`)
      const capacityBytes = capacityPages * 4096
      return openWith({ path, persistent: true, keepFreeBytes: 0, capacityBytes, ...way })
    },
    reopen: (closed) => openWith(openings.get(closed)!),
  })
}
