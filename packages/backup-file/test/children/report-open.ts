import { openFileBackup } from '../../src/index.ts'

// Says with which code opening fails.
const [kind, place] = process.argv.slice(2)
try {
  await using backup = await openFileBackup(kind === 'path' ? { path: place } : { directory: place })
  process.stdout.write(`opened ${backup.name}\n`)
} catch (failure) {
  process.stdout.write(`${(failure as { code?: string }).code}\n`)
}
