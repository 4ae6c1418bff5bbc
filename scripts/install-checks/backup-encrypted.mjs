import { deepEqual, equal } from 'node:assert/strict'
import { encryptedBackup } from '@spillway/backup-encrypted'
import { memoryBackup } from '@spillway/core'

const backup = encryptedBackup(memoryBackup({ capacityBytes: 1 << 20 }))
const { handles, error } = await backup.backupPages([new Uint8Array(8192).fill(7)])
equal(error, undefined)
const restored = new Uint8Array(8192)
deepEqual(await backup.copyPages(handles, [restored]), { copied: 2 })
equal(restored[8191], 7)
const { cipher } = backup.stats()
await backup.drop(handles)
await backup.close()
console.log(`two pages there and back through ${cipher}`)
