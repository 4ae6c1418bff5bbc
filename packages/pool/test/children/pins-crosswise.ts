/** Run as a program: two tasks that each hold a pin and wait for the other's memory, and nothing else keeps the process alive. */
import '../../../../scripts/resolve-sources.ts'

const { memoryBackup } = await import('@spillway/core')
const { Pool } = await import('../../src/index.ts')

const page = 4096
const pool = new Pool({ limitBytes: 8 * page, maxOrder: 2, provider: 'resizable', backup: memoryBackup() })
const buffers = await Promise.all(['left', 'right'].map((label) => pool.allocate(8 * page, { label })))

async function task(first: number, second: number): Promise<void> {
  using _held = await buffers[first]!.pin({ length: 4 * page, write: true })
  using _wanted = await buffers[second]!.pin({ offset: 4 * page, length: 4 * page, write: true })
}

void Promise.all([task(0, 1), task(1, 0)]).then(() => process.stdout.write('both ended\n'))
process.stdout.write('began\n')
