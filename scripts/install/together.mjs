import { equal, ok } from 'node:assert/strict'
import { openFileBackup } from '@spillway/backup-file'
import { openShmemBackup } from '@spillway/backup-shmem'
import { Pool } from '@spillway/pool'

const mebibyte = 1024 ** 2
const said = []
for (const backup of [
  await openFileBackup({ directory: '.', keepFreeBytes: 0 }),
  await openShmemBackup({ capacityBytes: 64 * mebibyte }),
]) {
  const pool = new Pool({ limitBytes: 8 * mebibyte, backup, provider: 'mmap' })
  const buffer = await pool.allocate(32 * mebibyte)
  for (let offset = 0; offset < buffer.sizeBytes; offset += mebibyte) {
    await buffer.write(offset, new Uint8Array(mebibyte).fill(offset / mebibyte + 1))
  }
  ok(buffer.residentBytes <= 8 * mebibyte)
  const into = new Uint8Array(mebibyte)
  for (let offset = 0; offset < buffer.sizeBytes; offset += mebibyte) {
    await buffer.read(offset, into)
    ok(into.every((byte) => byte === offset / mebibyte + 1))
  }
  await pool.close()
  equal(backup.stats().livePages, 0)
  said.push(backup.name)
  await backup.close()
}
console.log(`mapped memory spilled to ${said.join(' and ')}`)
