/**
 * The tests that each backup has to pass, for vitest and node:test.
 *
 * @module @spillway/core/conformance
 */

import { backupSuite } from './contract-suite.ts'
import type { BackupSuiteOptions } from './options.ts'
import { faultyBackupSuite, sharedBackupSuite } from './wrapped.ts'

export type { BackupSuiteOptions, OpenRequest } from './options.ts'
export { backupSuite, faultyBackupSuite, sharedBackupSuite }

/** The contract by itself, behind `faultyBackup` and behind `shareBackup`: what a backup of a package has to pass. */
export function backupSuites(options: BackupSuiteOptions): void {
  backupSuite(options)
  faultyBackupSuite(options)
  sharedBackupSuite(options)
}
