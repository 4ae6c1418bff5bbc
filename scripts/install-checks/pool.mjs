import { deepEqual, equal, ok } from 'node:assert/strict'
import { memoryBackup } from '@spillway/core'
import { Pool } from '@spillway/pool'

const mebibyte = 1024 ** 2
const backup = memoryBackup({ capacityBytes: 64 * mebibyte })
const pool = new Pool({ limitBytes: 8 * mebibyte, backup })
const buffer = await pool.allocate(32 * mebibyte)
for (let offset = 0; offset < buffer.sizeBytes; offset += mebibyte) {
  await buffer.write(offset, new Uint8Array(mebibyte).fill(offset / mebibyte))
}
ok(buffer.residentBytes <= 8 * mebibyte)
for (let offset = 0; offset < buffer.sizeBytes; offset += mebibyte) {
  const into = new Uint8Array(mebibyte)
  await buffer.read(offset, into)
  equal(into[0], offset / mebibyte)
  equal(into[mebibyte - 1], offset / mebibyte)
}
await buffer.free()
await pool.close()
deepEqual(backup.stats().livePages, 0)
await backup.close()
console.log('32 MiB under a limit of 8 MiB')
