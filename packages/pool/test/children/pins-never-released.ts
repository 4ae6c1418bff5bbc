/** Run as a program: a pin is held to the end, and `again` or `save` waits for it. */
import '../../../../scripts/resolve-sources.ts'

const { MemoryMedium, memoryBackup } = await import('@spillway/core')
const { Pool } = await import('../../src/index.ts')

const page = 4096
const backup = memoryBackup({ medium: new MemoryMedium() })
const pool = new Pool({ limitBytes: 8 * page, maxOrder: 0, provider: 'resizable', backup })
const held = await pool.allocate(8 * page, { label: 'held' })
const other = await pool.allocate(page)

async function waitAgain(): Promise<void> {
  using _held = await held.pin()
  await other.write(0, 'first').catch(({ code }) => process.stdout.write(`refused: ${code}\n`))
  await other.write(0, 'second')
}

async function save(): Promise<void> {
  using _held = await held.pin({ offset: page, length: page, write: true })
  await held.save('image', { pins: 'wait' })
}

void (process.argv[2] === 'save' ? save() : waitAgain()).then(() => process.stdout.write('ended\n'))
