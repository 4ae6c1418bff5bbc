import { shareBackup } from '../backups/share-backup.ts'
import type { Backup } from '../contract.ts'
import { faultyBackup } from '../faults/faulty-backup.ts'
import { backupSuite } from './contract-suite.ts'
import { faulting } from './faulting.ts'
import type { BackupSuiteOptions } from './options.ts'
import { sharing } from './sharing.ts'
import { createSuite } from './suite.ts'

/** The contract behind a `faultyBackup` that does nothing, and then what has to hold while it does something. */
export function faultyBackupSuite(options: BackupSuiteOptions): void {
  backupSuite(wrapped(options, 'behind faultyBackup', (backup) => faultyBackup(backup)))
  options.describe(`${options.name}: faults`, () => faulting(createSuite(options)))
}

/** The contract behind a reference of `shareBackup`, and what has to hold between references. */
export function sharedBackupSuite(options: BackupSuiteOptions): void {
  backupSuite(wrapped(options, 'behind shareBackup', (backup) => shareBackup(backup).reference()))
  options.describe(`${options.name}: shared`, () => sharing(createSuite(options)))
}

function wrapped(
  options: BackupSuiteOptions,
  how: string,
  wrap: (backup: Backup) => Backup,
): BackupSuiteOptions {
  const inside = new WeakMap<Backup, Backup>()
  const { corrupt, reopen } = options
  const wrapInner = (inner: Backup): Backup => {
    const outer = wrap(inner)
    inside.set(outer, inner)
    return outer
  }
  return {
    ...options,
    name: `${options.name} ${how}`,
    open: async (request) => wrapInner(await options.open(request)),
    reopen: reopen && (async (closed) => wrapInner(await reopen(inside.get(closed)!))),
    corrupt: corrupt && ((backup, handle) => corrupt(inside.get(backup)!, handle)),
  }
}
