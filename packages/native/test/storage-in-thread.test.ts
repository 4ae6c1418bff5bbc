import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { allocateInThread, punchHoleInThread } from '../src/index.ts'

const directory = mkdtempSync(join(tmpdir(), 'spillway-native-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const MiB = 2 ** 20

it('allocates and punches in another thread, visibly in the blocks of the file', async () => {
  const fd = openSync(join(directory, 'pages'), 'w+')
  await allocateInThread(fd, 0, 4 * MiB)
  expect(fstatSync(fd)).toMatchObject({ size: 4 * MiB })
  const full = fstatSync(fd).blocks
  expect(full * 512).toBeGreaterThanOrEqual(4 * MiB)
  writeSync(fd, new Uint8Array(MiB).fill(7), 0, MiB, 0)
  await Promise.all([punchHoleInThread(fd, MiB, MiB), punchHoleInThread(fd, 3 * MiB, MiB)])
  expect((full - fstatSync(fd).blocks) * 512).toBe(2 * MiB)
  closeSync(fd)
})

it('rejects with the errno of the call', async () => {
  for (const call of [allocateInThread, punchHoleInThread]) {
    await expect(call(1_000_000, 0, 1)).rejects.toMatchObject({ code: 'EBADF', syscall: 'fallocate' })
    await expect(call(0, -1, 1)).rejects.toBeInstanceOf(RangeError)
    await expect(call(0, 0, 0)).rejects.toBeInstanceOf(RangeError)
  }
})
