import type { Backup } from '../contract.ts'
import { defineBackup } from '../define/define-backup.ts'
import { assertByteCount, assertKnownOptions, assertPageSize } from '../validation.ts'

export interface NullBackupOptions {
  /** Size of every page in bytes: a power of two from 4 KiB to 2 MiB. @default 4096 */
  readonly pageSizeBytes?: number | undefined
  /** Most bytes it pretends to hold. @default 1 PiB */
  readonly capacityBytes?: number | undefined
  /** Names it in errors and statistics. @default 'null' */
  readonly name?: string | undefined
}

/**
 * Keeps nothing: `copyPages` leaves the memory as it is. For measuring what a pool costs by itself. Handles are live
 * until they are dropped, as everywhere, so that a pool's mistakes show; they cost at most a bit per page.
 */
export function nullBackup(options: NullBackupOptions = {}): Backup {
  assertKnownOptions(options, ['pageSizeBytes', 'capacityBytes', 'name'], 'nullBackup')
  const { pageSizeBytes = 4096, capacityBytes = 2 ** 50, name = 'null' } = options
  assertPageSize(pageSizeBytes)
  assertByteCount(capacityBytes, 'capacityBytes')
  const nothing = () => undefined
  return defineBackup({
    name,
    medium: 'null',
    pageSizeBytes,
    stores: false,
    numbered: {
      capacityBytes,
      slicePages: Number.POSITIVE_INFINITY,
      store: nothing,
      copy: nothing,
      drop: nothing,
    },
    startCopy(_first, span, done) {
      done(span.byteLength / pageSizeBytes)
      return true
    },
    mediumBytes: () => 0,
  })
}
