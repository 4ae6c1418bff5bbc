import type { BackupStats } from '@spillway/core'

/** Counters of a shared-memory backup. */
export interface ShmemBackupStats extends BackupStats {
  readonly medium: 'memfd' | 'tmpfs'
  /** Whether bytes are copied through a mapping or by system calls. */
  readonly access: 'mapped' | 'calls'
  /** Why this medium and access. */
  readonly mediumReason: string
  readonly capacityBytes: number
  /** Memory of dropped pages that is kept for the next ones. */
  readonly warmBytes: number
  readonly reservedBytes: number
  /** Memory of dropped pages that went back to the system. */
  readonly givenBackBytes: number
  /** Times that the system refused to take memory back; it stayed warm. */
  readonly giveBackErrors: number
  /** Bookkeeping in this process. */
  readonly metadataBytes: number
}
