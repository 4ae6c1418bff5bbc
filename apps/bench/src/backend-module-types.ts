import type { Backup } from '@spillway/core'
import type { BackupSuiteOptions } from '@spillway/core/conformance'

/** What `open` of a backend module is given. A variant adds its own settings, or changes these. */
export interface BackendModuleSettings {
  /** Bytes that the backup has to hold. */
  readonly capacityBytes: number
  /** Bytes of a page: those of the backup have to be as large. */
  readonly pageSizeBytes: number
  /** An empty directory for this backup alone, on the disk that is measured; it is removed afterwards. */
  readonly directory: string
  /** `--checksums`: whether the backup is to notice damage. */
  readonly checksums: boolean
  readonly [setting: string]: unknown
}

/** What a module exports that `--backend ./my-backup.mjs` and `conform ./my-backup.mjs` take. */
export interface BackendModule {
  /** Opens a new, empty backup. The bench closes it. */
  open(settings: BackendModuleSettings): Backup | Promise<Backup>
  /** Names the backend in tables and charts, if no label is given. */
  readonly title?: string
  /** `./my-backup.mjs:fast` is opened with the settings of `fast` as well. */
  readonly variants?: Readonly<Record<string, Readonly<Record<string, unknown>>>>
  /** For `conform`: see `BackupSuiteOptions`. */
  readonly corrupt?: BackupSuiteOptions['corrupt']
  readonly reopen?: BackupSuiteOptions['reopen']
  readonly startsCopies?: boolean
}
