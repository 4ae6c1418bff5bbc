import { execFile } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type FileBackup, openFileBackup } from '@spillway/backup-file'
import { Pool } from '@spillway/pool'
import { afterAll, expect, it } from 'vitest'

const program = fileURLToPath(new URL('../dist/cli.js', import.meta.url))
const directory = mkdtempSync(join(tmpdir(), 'bench-verify-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
let names = 0

function verify(path: string): Promise<{ status: number | null; output: string; errors: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [program, 'verify', path], (_failure, output, errors) => {
      resolve({ status: child.exitCode, output, errors })
    })
  })
}

/** A store with the images `first` and `second`, of 64 pages each; `first` is in the first slots. */
async function store(): Promise<{ path: string; backup: FileBackup }> {
  const path = join(directory, `store-${names++}`)
  const backup = await openFileBackup({ path, persistent: true, keepFreeBytes: 0, capacityBytes: 2 ** 22 })
  await using pool = new Pool({ limitBytes: 2 ** 23, backup })
  for (const [name, byte] of [
    ['first', 1],
    ['second', 2],
  ] as const) {
    const buffer = await pool.allocate(64 * 4096)
    await buffer.write(0, new Uint8Array(64 * 4096).fill(byte))
    await buffer.save(name)
  }
  return { path, backup }
}

async function closedStore(): Promise<string> {
  const { path, backup } = await store()
  await backup.close()
  return path
}

function overwrite(path: string, offsetBytes: number): void {
  const fileDescriptor = openSync(path, 'r+')
  writeSync(fileDescriptor, Buffer.from('overwritten'), 0, 11, offsetBytes)
  closeSync(fileDescriptor)
}

it('says that a whole store is whole: exit status 0', async () => {
  const { status, output, errors } = await verify(await closedStore())
  expect(errors).toBe('')
  expect(output).toBe(
    '✓ first: 64 pages\n✓ second: 64 pages\nevery page is what was saved: 2 images, 512 KiB read\n',
  )
  expect(status).toBe(0)
})

it('names a damaged page, with status 1, and reads the others', async () => {
  const path = await closedStore()
  overwrite(path, 2 ** 21 + 5 * 4096)
  const { status, output } = await verify(path)
  expect(output).toContain(
    '✗ first: 64 pages\n    block 1: 1 of 64 pages are not what was saved, the first at byte',
  )
  expect(output).toContain('✓ second: 64 pages\n1 image damaged: 2 images')
  expect(status).toBe(1)
})

it('names a damaged head, with status 1', async () => {
  const path = await closedStore()
  overwrite(path, 30)
  const { status, output, errors } = await verify(path)
  expect(errors).toContain('its header is damaged')
  expect([status, output]).toEqual([1, ''])
})

it('looks at nothing that is open elsewhere, and at no other file: status 2', async () => {
  const { path, backup } = await store()
  expect(await verify(path)).toMatchObject({
    status: 2,
    errors: expect.stringContaining('is open elsewhere'),
  })
  await backup.close()
  const other = join(directory, 'other')
  writeFileSync(other, 'a file of somebody')
  const message = expect.stringContaining('is not a store of images')
  expect(await verify(other)).toMatchObject({ status: 2, errors: message })
  expect(await verify(join(directory, 'none'))).toMatchObject({ status: 2 })
  expect((await verify('')).status).toBe(2)
})
