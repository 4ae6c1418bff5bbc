import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants as fsConstants,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import {
  cachedBytes,
  deviceGeometry,
  directAlignment,
  discardInThread,
  duplicate,
  overwriteInPlace,
  setDirect,
  tellsExtents,
} from '../src/index.ts'

const directory = mkdtempSync(join(tmpdir(), 'spillway-descriptors-'))
afterAll(() => rmSync(directory, { recursive: true }))
const fileOf = (bytes: number): number => {
  const fd = openSync(join(directory, `file-${bytes}`), 'w+')
  writeSync(fd, new Uint8Array(bytes))
  return fd
}
const flagsOf = (fd: number): string => readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1').split('\n')[1]

it('duplicates a descriptor: the second is of the same file and outlives the first', () => {
  const fd = fileOf(100)
  const second = duplicate(fd)
  const { ino } = fstatSync(fd)
  closeSync(fd)
  expect(fstatSync(second)).toMatchObject({ ino, size: 100 })
  closeSync(second)
  expect(() => duplicate(second)).toThrow(expect.objectContaining({ code: 'EBADF' }))
  expect(() => duplicate(-1)).toThrow(RangeError)
})

it('switches direct I/O on and off, and tells what it needs', () => {
  const fd = fileOf(8192)
  const before = flagsOf(fd)
  const alignment = directAlignment(fd)
  setDirect(fd, true)
  expect(flagsOf(fd)).not.toBe(before)
  setDirect(fd, false)
  expect(flagsOf(fd)).toBe(before)
  if (alignment.isKnown && alignment.offsetBytes > 0) expect(4096 % alignment.offsetBytes).toBe(0)
  closeSync(fd)
})

it('counts what is in the page cache', ({ skip }) => {
  const fd = fileOf(1 << 20)
  try {
    expect(cachedBytes(fd, 0, 1 << 20)).toBe(1 << 20)
    expect(cachedBytes(fd, 1 << 30, 4096)).toBe(0)
  } catch (failure) {
    if ((failure as { code?: string }).code === 'ENOSYS') skip('needs Linux 6.5')
    throw failure
  } finally {
    closeSync(fd)
  }
})

it('tells a file in memory, which lies on no device, from others', () => {
  const inMemory = openSync('/dev/shm', 0o20000000 | fsConstants.O_DIRECTORY | fsConstants.O_RDWR, 0o600)
  expect(tellsExtents(inMemory)).toBe(false)
  closeSync(inMemory)
  expect(() => tellsExtents(inMemory)).toThrow(expect.objectContaining({ code: 'EBADF' }))
})

it('says where a file cannot be overwritten in place, or is no device', () => {
  const fd = openSync('/dev/null', 'r+')
  expect(() => overwriteInPlace(fd)).toThrow(expect.objectContaining({ syscall: 'ioctl' }))
  expect(() => deviceGeometry(fd)).toThrow(expect.objectContaining({ code: 'ENOTTY' }))
  closeSync(fd)
})

it.each([512, 4096])(
  'knows a block device with blocks of %i bytes, and discards what it holds',
  async (blockBytes) => {
    const image = join(directory, `image-${blockBytes}`)
    writeFileSync(image, '')
    truncateSync(image, 16 << 20)
    let device: string
    try {
      device = execFileSync('losetup', ['-f', '--show', '-b', String(blockBytes), image], {
        encoding: 'utf8',
        stdio: 'pipe',
      }).trim()
    } catch (failure) {
      process.stdout.write(
        `left out: a block device: needs root and loop devices: ${(failure as Error).message}\n`,
      )
      return
    }
    try {
      const fd = openSync(device, 'r+')
      expect(deviceGeometry(fd)).toEqual({ sizeBytes: 16 << 20, logicalBlockBytes: blockBytes })
      writeSync(fd, new Uint8Array(1 << 20).fill(7), 0, 1 << 20, 1 << 20)
      execFileSync('sync', [device])
      const taken = statSync(image).blocks
      await discardInThread(fd, 1 << 20, 1 << 20)
      expect(statSync(image).blocks).toBeLessThan(taken)
      await expect(discardInThread(fd, 100, 100)).rejects.toMatchObject({ code: 'EINVAL', syscall: 'ioctl' })
      closeSync(fd)
    } finally {
      execFileSync('losetup', ['-d', device])
    }
  },
)
