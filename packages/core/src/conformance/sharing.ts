import assert from 'node:assert/strict'
import { shareBackup } from '../backups/share-backup.ts'
import { rejectsWith, Subject } from './subject.ts'
import type { Suite } from './suite.ts'

/** Several owners of one backup: each closes its own reference, and the last close closes the backup. */
export function sharing({ options, open }: Suite): void {
  options.it('T83: owners drop their own pages and leave those of others', async () => {
    const { backup, capacityPages } = await open()
    const shared = shareBackup(backup)
    const one = new Subject(shared.reference(), capacityPages)
    const other = new Subject(shared.reference(), capacityPages)
    const ones = await one.store(one.pattern(6, 210))
    const others = await other.store(other.pattern(6, 211))
    await one.backup.drop(ones)
    await other.assertHolds(others, other.pattern(6, 211))
    assert.equal(one.backup.stats().livePages, 0)
    assert.equal(other.backup.stats().livePages, 6)
    await one.backup.close()
    await other.assertHolds(others, other.pattern(6, 211))
    await other.backup.close()
  })

  options.it('T84: only the last close closes the backup, and a closed reference is EBADF', async () => {
    const { backup, capacityPages } = await open()
    const shared = shareBackup(backup)
    const one = new Subject(shared.reference(), capacityPages)
    const other = new Subject(shared.reference(), capacityPages)
    await one.store(one.pattern(2, 212))
    assert.equal(shared.references, 2)
    await one.backup.close()
    await one.backup.close()
    assert.equal(shared.references, 1)
    await rejectsWith('EBADF', () => one.backup.bytesAvailable())
    await other.assertHolds(await other.store(other.pattern(2, 213)), other.pattern(2, 213))
    await Promise.all([other.backup.close(), other.backup.close()])
    assert.equal(shared.references, 0)
    await rejectsWith('EBADF', () => backup.bytesAvailable())
    assert.throws(() => shared.reference(), { code: 'EBADF' })
    const leaks = backup.capabilities.persistent ? [0, 0] : [2, 2]
    assert.deepEqual([one.backup.stats().leakedPages, other.backup.stats().leakedPages], leaks)
  })
}
