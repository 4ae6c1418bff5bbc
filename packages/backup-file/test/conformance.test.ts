import { backupSuites } from '@spillway/core/conformance'
import { describe, it } from 'vitest'
import { kinds } from './kinds.ts'
import { scratchDirectory } from './places.ts'

for (const kind of kinds(scratchDirectory())) {
  let capacity = 0
  backupSuites({
    describe,
    it,
    name: `file (${kind.name})`,
    open: ({ capacityPages }) => {
      capacity = capacityPages
      return kind.open({ capacityBytes: capacityPages * 4096 })
    },
    corrupt: (_backup, handle) => kind.corrupt(handle, capacity),
  })
}
