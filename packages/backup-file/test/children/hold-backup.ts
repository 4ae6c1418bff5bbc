import { openFileBackup } from '../../src/index.ts'

// Opens a backup, stores pages and waits to be killed.
const [kind, place] = process.argv.slice(2)
const backup = await openFileBackup(kind === 'path' ? { path: place } : { directory: place })
await backup.backupPages([new Uint8Array(64 * 4096).fill(7)])
process.stdout.write('holding\n')
setInterval(() => backup.stats(), 60_000)
