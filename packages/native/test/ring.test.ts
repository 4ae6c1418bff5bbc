import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { available, Mapping, Ring, systemPageBytes } from '../src/index.ts'

const page = systemPageBytes()
const undo: (() => unknown)[] = []

afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

function file(flags = 0): number {
  const directory = mkdtempSync(join(tmpdir(), 'native-'))
  undo.push(() => rmSync(directory, { recursive: true }))
  const fd = openSync(join(directory, 'file'), constants.O_RDWR | constants.O_CREAT | flags, 0o600)
  undo.push(() => closeSync(fd))
  return fd
}

/** A pipe whose reading end blocks a ring request until something is written: an I/O that stays in flight. */
function pipe(): { read: number; write: number } {
  const directory = mkdtempSync(join(tmpdir(), 'native-'))
  undo.push(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'pipe')
  execFileSync('mkfifo', [path])
  // In this order neither open waits for the other end; without a writer the reader gets the end of the file.
  const write = openSync(path, constants.O_RDWR)
  const read = openSync(path, constants.O_RDONLY)
  undo.push(() => closeSync(read))
  undo.push(() => closeSync(write))
  return { read, write }
}

function memory(pages: number): { mapping: Mapping; bytes: Uint8Array } {
  const mapping = Mapping.anonymous(pages * page)
  undo.push(() => mapping.close())
  return { mapping, bytes: mapping.view(0, pages * page) }
}

describe('a read that calls back', () => {
  it('is told what it read, or its error, later and once, and what it throws is uncaught and stops no other', async () => {
    await using ring = Ring.open({ entries: 4 })
    const fd = file()
    writeSync(fd, new Uint8Array(2 * page).fill(7))
    const { bytes } = memory(8)
    const told: (number | Error)[] = []
    const failure = new Error('thrown by done')
    const uncaught: unknown[] = []
    process.setUncaughtExceptionCaptureCallback((error) => uncaught.push(error))
    try {
      for (let index = 0; index < 8; index++) {
        const span = bytes.subarray(index * page, (index + 1) * page)
        const began = ring.readThen(fd, span, (index % 4) * page, (outcome) => {
          told.push(outcome)
          if (index === 1) throw failure
        })
        expect(began).toBe(true)
      }
      expect(ring.readThen(1e6, bytes.subarray(0, page), 0, (outcome) => told.push(outcome))).toBe(true)
      expect(told).toEqual([])
      while (told.length < 9) await new Promise(setImmediate)
      await new Promise(setImmediate)
    } finally {
      process.setUncaughtExceptionCaptureCallback(null)
    }
    expect(uncaught).toEqual([failure])
    expect(told.filter((outcome) => outcome === page)).toHaveLength(4)
    expect(told.filter((outcome) => outcome === 0)).toHaveLength(4)
    expect(told.find((outcome) => outcome instanceof Error)).toMatchObject({ code: 'EBADF' })
    expect(bytes[page + 5]).toBe(7)
    expect(ring.inFlight).toBe(0)
  })

  it('may read on, close the ring, and is refused once that is closed', async () => {
    const ring = Ring.open({ entries: 2 })
    const fd = file()
    writeSync(fd, new Uint8Array(page).fill(7))
    const { bytes } = memory(1)
    let reads = 0
    let closed: Promise<void> | undefined
    await new Promise<void>((resolve) => {
      const next = (): void => {
        if (++reads < 50) ring.readThen(fd, bytes, 0, next)
        else {
          closed = ring.close()
          resolve()
        }
      }
      ring.readThen(fd, bytes, 0, next)
    })
    await closed
    expect(reads).toBe(50)
    expect(ring.readThen(fd, bytes, 0, () => reads++)).toBe(false)
    await new Promise(setImmediate)
    expect(reads).toBe(50)
    expect(() => ring.readThen(fd, bytes, 0, undefined as never)).toThrow(TypeError)
    expect(() => ring.readThen(fd, new Uint8Array(page), 0, () => {})).toThrow(TypeError)
  })
})

describe('available', () => {
  it('says that io_uring works on this machine', () => {
    expect(available()).toMatchObject({ ioUring: true })
    expect(available().ioUringReason).toBeUndefined()
  })
})

describe.each([
  ['watched by the event loop', Ring.open],
  ['waited for in a thread', Ring.openWithThread],
])('Ring %s', (_name, openRing) => {
  const open = (entries: number): Ring => {
    const ring = openRing({ entries })
    undo.push(() => ring.close())
    return ring
  }

  it.each([
    ['through the page cache', 0],
    ['with O_DIRECT', constants.O_DIRECT],
  ])('writes and reads %s, far more requests than entries', async (_how, flags) => {
    const ring = open(8)
    const fd = file(flags)
    const { bytes } = memory(128)
    const pages = Array.from({ length: 64 }, (_, index) => bytes.subarray(index * page, (index + 1) * page))
    pages.forEach((span, index) => {
      span.fill(index + 1)
    })
    const written = pages.map((span, index) => ring.write(fd, span, (63 - index) * page))
    expect(ring.inFlight).toBe(64)
    expect(await Promise.all(written)).toEqual(new Array(64).fill(page))
    expect(ring.inFlight).toBe(0)
    await ring.sync(fd)
    await ring.sync(fd, { dataOnly: true })
    const back = bytes.subarray(64 * page)
    const read = pages.map((_, index) =>
      ring.read(fd, back.subarray(index * page, (index + 1) * page), index * page),
    )
    expect(await Promise.all(read)).toEqual(new Array(64).fill(page))
    for (let index = 0; index < 64; index++) {
      expect(back[index * page]).toBe(64 - index)
      expect(back[(index + 1) * page - 1]).toBe(64 - index)
    }
  })

  it('moves the bytes that any sequence of reads and writes at any offset says', async () => {
    const ring = open(4)
    const { bytes } = memory(4)
    const operation = fc.record({
      write: fc.boolean(),
      from: fc.nat({ max: page }),
      length: fc.integer({ min: 1, max: page }),
      offset: fc.nat({ max: 3 * page }),
      value: fc.integer({ min: 1, max: 255 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 12 }), async (operations) => {
        const fd = file()
        let expected = new Uint8Array(0)
        for (const { write, from, length, offset, value } of operations) {
          const span = bytes.subarray(from, from + length).fill(write ? value : 0)
          if (write) {
            expect(await ring.write(fd, span, offset)).toBe(length)
            const grown = new Uint8Array(Math.max(expected.length, offset + length))
            grown.set(expected)
            grown.fill(value, offset, offset + length)
            expected = grown
          } else {
            const part = expected.slice(offset, offset + length)
            expect(await ring.read(fd, span, offset)).toBe(part.length)
            expect(span.slice(0, part.length)).toEqual(part)
          }
        }
      }),
      { numRuns: 50 },
    )
  })

  it('returns what there is at the end of a file, and nothing behind it', async () => {
    const ring = open(2)
    const fd = file()
    const { bytes } = memory(1)
    await ring.write(fd, bytes.subarray(0, 100).fill(5), 0)
    expect(await ring.read(fd, bytes, 90)).toBe(10)
    expect(await ring.read(fd, bytes, 100)).toBe(0)
  })

  it('reaches beyond 4 GiB', async () => {
    const ring = open(2)
    const fd = file()
    const { bytes } = memory(2)
    const far = 7 * 2 ** 32 + 5 * page
    bytes.fill(9, 0, page)
    expect(await ring.write(fd, bytes.subarray(0, page), far)).toBe(page)
    expect(await ring.read(fd, bytes.subarray(page), far)).toBe(page)
    expect(bytes[2 * page - 1]).toBe(9)
    const direct = new Uint8Array(1)
    readSync(fd, direct, 0, 1, far)
    expect(direct[0]).toBe(9)
  })

  it('rejects with the code of the system, each request for itself', async () => {
    const ring = open(4)
    const { bytes } = memory(1)
    const fd = file()
    const readOnly = openSync(`/proc/self/fd/${fd}`, 'r')
    undo.push(() => closeSync(readOnly))
    const results = await Promise.allSettled([
      ring.read(1_000_000, bytes, 0),
      ring.write(fd, bytes, 0),
      ring.write(readOnly, bytes, 0),
      ring.write(file(constants.O_DIRECT), bytes.subarray(1, 512), 0),
      ring.sync(1_000_000),
    ])
    expect(results).toMatchObject([
      { reason: { code: 'EBADF', syscall: 'read', errno: -9 } },
      { value: page },
      { reason: { code: 'EBADF', syscall: 'write' } },
      { reason: { code: 'EINVAL' } },
      { reason: { code: 'EBADF', syscall: 'fsync' } },
    ])
  })

  it('takes memory of open mappings only', async () => {
    const ring = open(2)
    const fd = file()
    const { mapping, bytes } = memory(1)
    expect(() => ring.read(fd, new Uint8Array(page), 0)).toThrow(TypeError)
    expect(() => ring.read(fd, [] as never, 0)).toThrow(TypeError)
    expect(() => ring.read(fd, bytes.subarray(0, 0), 0)).toThrow(RangeError)
    expect(() => ring.read(-1, bytes, 0)).toThrow(RangeError)
    expect(() => ring.write(fd, bytes, -1)).toThrow(RangeError)
    expect(() => ring.write(fd, bytes, 0.5)).toThrow(RangeError)
    class Liar extends Uint8Array {
      override get byteLength() {
        return 2 ** 40
      }
      override get byteOffset() {
        return -(2 ** 20)
      }
    }
    expect(() => ring.write(fd, new Liar(bytes.buffer as ArrayBuffer), 0)).toThrow(RangeError)
    mapping.close()
    expect(() => ring.read(fd, bytes, 0)).toThrow(TypeError)
    expect(ring.inFlight).toBe(0)
  })

  it('keeps memory in flight where it is: EBUSY for giving back, and close waits', async () => {
    const ring = open(2)
    const { read, write } = pipe()
    const { mapping, bytes } = memory(4)
    const stuck = ring.read(read, bytes.subarray(page, 2 * page), 0)
    const queued = [
      ring.read(read, bytes.subarray(2 * page, 3 * page), 0),
      ring.read(read, bytes.subarray(0, 1), 0),
    ]
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(() => mapping.giveBack(0, 4 * page)).toThrow(expect.objectContaining({ code: 'EBUSY' }))
    expect(() => mapping.giveBack(page, page)).toThrow(expect.objectContaining({ code: 'EBUSY' }))
    expect(() => mapping.giveBack(0, page), 'waiting for a place').toThrow(
      expect.objectContaining({ code: 'EBUSY' }),
    )
    mapping.giveBack(3 * page, page)
    mapping.close()
    expect(() => mapping.view(0, 1)).toThrow(expect.objectContaining({ code: 'EBADF' }))
    expect(() => ring.read(read, bytes, 0)).toThrow(TypeError)
    expect(ring.inFlight).toBe(3)
    expect(bytes[page]).toBe(0)
    writeSync(write, new Uint8Array(3 * page).fill(42))
    expect((await stuck) > 0).toBe(true)
    expect((await Promise.all(queued)).every((moved) => moved > 0)).toBe(true)
    expect(bytes[page], 'closed when the last request was through').toBe(0)
  })

  it('settles everything at close, refuses what comes later, and closes once', async () => {
    const ring = openRing({ entries: 2 })
    const fd = file()
    const { bytes } = memory(1)
    const written = Array.from({ length: 20 }, (_, index) => ring.write(fd, bytes, index * page))
    const closed = ring.close()
    expect(ring.close()).toBe(closed)
    await expect(ring.write(fd, bytes, 0)).rejects.toMatchObject({ code: 'EBADF' })
    await closed
    expect(ring.inFlight).toBe(0)
    expect(await Promise.all(written)).toEqual(new Array(20).fill(page))
    await expect(ring.sync(fd)).rejects.toMatchObject({ code: 'EBADF' })
  })

  it('settles everything when its descriptor is closed by someone else, and keeps that memory', async () => {
    const before = new Set(ringDescriptors())
    const { read } = pipe()
    const ring = openRing({ entries: 2 })
    const { mapping, bytes } = memory(1)
    const stuck = ring.read(read, bytes, 0)
    // The loop must have begun to watch the descriptor: libuv ends a process that is to watch a closed one.
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate)
    await new Promise((resolve) => setTimeout(resolve, 5))
    const descriptor = ringDescriptors().find((fd) => !before.has(fd))!
    closeSync(descriptor)
    await expect(ring.read(read, bytes, 0)).rejects.toMatchObject({
      code: 'EBADF',
      syscall: 'io_uring_enter',
    })
    await expect(stuck).rejects.toMatchObject({ code: 'EBADF' })
    await expect(ring.read(read, bytes, 0)).rejects.toMatchObject({ code: 'EBADF' })
    mapping.close()
    expect(() => mapping.view(0, 1)).toThrow()
    await ring.close()
  })

  it('gives descriptors back', async () => {
    const before = ringDescriptors().length
    for (let round = 0; round < 20; round++) {
      await using ring = openRing({ entries: 1 })
      expect(ring.inFlight).toBe(0)
    }
    expect(ringDescriptors().length).toBe(before)
  })

  it('leaves the event loop its turns while results keep coming', async () => {
    const ring = open(32)
    const fd = file()
    const { bytes } = memory(1)
    await ring.write(fd, bytes, 0)
    let turns = 0
    let reading = true
    const count = () => {
      turns++
      if (reading) setImmediate(count)
    }
    setImmediate(count)
    // Cached reads complete while they are submitted: nothing but the ring's own restraint lets others run.
    await Promise.all(
      Array.from({ length: 32 }, async () => {
        for (let index = 0; index < 500; index++) await ring.read(fd, bytes, 0)
      }),
    )
    reading = false
    expect(turns).toBeGreaterThan(5)
  })
})

it('refuses bad options', () => {
  expect(() => Ring.open({ entries: 0 })).toThrow(RangeError)
  expect(() => Ring.open({ entries: 4097 })).toThrow(RangeError)
  expect(() => Ring.open({ entries: 1.5 })).toThrow(RangeError)
  expect(() => Ring.open({ entries: '4' as never })).toThrow(TypeError)
  expect(() => Ring.open({ entries: 4, polled: true } as never)).toThrow(/no option "polled"/)
})

function ringDescriptors(): number[] {
  return readdirSync('/proc/self/fd')
    .filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[io_uring]'
      } catch {
        return false
      }
    })
    .map(Number)
}
