import {
  type BackupSuiteOptions,
  backupSuite,
  faultyBackupSuite,
  sharedBackupSuite,
} from '@spillway/core/conformance'
import { describe, it } from 'vitest'
import { kinds } from './kinds.ts'
import { mappedMemory } from './mapped-memory.ts'
import { scratchDirectory } from './places.ts'

// What lies around a backup does not care how its pages travel: each wrapper goes around one kind.
for (const [index, kind] of kinds(scratchDirectory()).entries()) {
  let capacity = 0
  const options: BackupSuiteOptions = {
    describe,
    it,
    name: `file (${kind.name})`,
    open: ({ capacityPages }) => {
      capacity = capacityPages
      return kind.open({ capacityBytes: capacityPages * 4096 })
    },
    startsCopies: true,
    memory: mappedMemory,
    corrupt: (_backup, handle) => kind.corrupt(handle, capacity),
  }
  backupSuite(options)
  if (index === 0) faultyBackupSuite(options)
  if (index === 1) sharedBackupSuite(options)
}
