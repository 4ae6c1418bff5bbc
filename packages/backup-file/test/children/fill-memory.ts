import { openFileBackup } from '../../src/index.ts'

// Stores pages in a file system in memory until they are refused, then takes memory as any program does.
await using backup = await openFileBackup({ directory: process.argv[2] })
const available = await backup.bytesAvailable()
const piece = new Uint8Array(2 ** 20).fill(1)
let stored = 0
let code: unknown
while (code === undefined && stored < 400) {
  const { error } = await backup.backupPages([piece])
  if (error === undefined) stored++
  else code = (error as { code?: unknown }).code
}
const taken: Uint8Array[] = []
for (let index = 0; index < 12; index++) taken.push(new Uint8Array(2 ** 20).fill(index))
process.stdout.write(JSON.stringify({ available, stored, code, taken: taken.length }))
