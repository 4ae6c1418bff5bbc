import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import {
  allocate,
  available,
  createMemfd,
  Mapping,
  mappedAddress,
  punchHole,
  systemPageBytes,
} from '../src/index.ts'
import { libcFor } from '../src/libc.ts'
import { mapRegion, place, retire } from '../src/region.ts'

const MiB = 1024 * 1024
const page = systemPageBytes()
const undo: (() => void)[] = []

afterEach(() => {
  for (const step of undo.splice(0).reverse()) step()
})

function closing<Resource extends { close(): void }>(resource: Resource): Resource {
  undo.push(() => resource.close())
  return resource
}

function memfd(lengthBytes: number): number {
  const fd = createMemfd('test')
  undo.push(() => closeSync(fd))
  ftruncateSync(fd, lengthBytes)
  return fd
}

/** Resident bytes of this process, by kind. */
function resident(kind: 'RssAnon' | 'RssShmem'): number {
  const found = new RegExp(`${kind}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'latin1'))
  return Number(found?.[1]) * 1024
}

function codeOf(work: () => unknown): unknown {
  try {
    work()
  } catch (error) {
    return (error as { code?: string }).code ?? (error as Error).name
  }
  return 'no error'
}

describe('available', () => {
  it('says that everything this machine needs is there', () => {
    expect(available()).toMatchObject({ available: true, mmap: true, memfd: true, punchHole: true })
    expect(available()).toBe(available())
    expect(Object.isFrozen(available())).toBe(true)
  })
})

describe('Mapping.anonymous', () => {
  it.each([false, true])(
    'is zero, keeps what is written and gives it back at once (huge pages: %s)',
    (hugePages) => {
      const mapping = closing(Mapping.anonymous(64 * MiB, { hugePages }))
      const bytes = mapping.view(0, 64 * MiB)
      const before = resident('RssAnon')
      for (let offset = 0; offset < bytes.length; offset += page) bytes[offset] = 1
      expect(resident('RssAnon') - before).toBeGreaterThan(60 * MiB)
      mapping.giveBack(32 * MiB, 32 * MiB)
      expect(resident('RssAnon') - before).toBeLessThan(36 * MiB)
      expect(bytes[32 * MiB - page]).toBe(1)
      expect(bytes[32 * MiB]).toBe(0)
      expect(bytes[64 * MiB - page]).toBe(0)
      mapping.close()
      expect(resident('RssAnon') - before).toBeLessThan(4 * MiB)
      expect(bytes[0]).toBe(0)
    },
  )

  it('populates', () => {
    const mapping = closing(Mapping.anonymous(32 * MiB))
    const before = resident('RssAnon')
    mapping.populate(0, 32 * MiB)
    expect(resident('RssAnon') - before).toBeGreaterThan(30 * MiB)
    mapping.view(0, 1)[0] = 5
    mapping.populate(0, page)
    expect(mapping.view(0, 1)[0]).toBe(5)
  })

  it('has views of any range that share the memory', () => {
    const mapping = closing(Mapping.anonymous(4 * page))
    const whole = mapping.view(0, 4 * page)
    const part = mapping.view(page + 3, 10)
    part.set([1, 2, 3])
    expect([...whole.subarray(page + 2, page + 7)]).toEqual([0, 1, 2, 3, 0])
    expect(part.byteOffset).toBe(0)
    expect(part.buffer.byteLength).toBe(10)
  })

  it('takes lengths that are no whole pages', () => {
    const mapping = closing(Mapping.anonymous(page + 1))
    expect(mapping.lengthBytes).toBe(page + 1)
    mapping.view(0, page + 1).fill(9)
    mapping.giveBack(page, 1)
    expect(mapping.view(page - 1, 2)).toEqual(new Uint8Array([9, 0]))
  })

  it('refuses what is not in it', () => {
    const mapping = closing(Mapping.anonymous(4 * page))
    for (const [offset, length] of [
      [-1, 1],
      [0, 0],
      [0, 4 * page + 1],
      [4 * page, 1],
      [1.5, 1],
      [0, Number.NaN],
      [0, Number.POSITIVE_INFINITY],
      [2 ** 53, 1],
    ] as const) {
      expect(() => mapping.view(offset, length), `view(${offset}, ${length})`).toThrow(RangeError)
      expect(() => mapping.giveBack(offset, length)).toThrow(RangeError)
      expect(() => mapping.populate(offset, length)).toThrow(RangeError)
    }
    expect(() => mapping.view('0' as never, 1)).toThrow(TypeError)
    expect(() => mapping.giveBack(1, page)).toThrow(/multiple of the system's page/)
    expect(() => mapping.giveBack(0, page - 1)).toThrow(/multiple of the system's page/)
    expect(codeOf(() => mapping.remove(0, page))).toBe('EINVAL')
    expect(() => Mapping.anonymous(0)).toThrow(RangeError)
    expect(() => Mapping.anonymous(2 ** 47)).toThrow(RangeError)
    expect(closing(Mapping.anonymous(2 ** 40)).view(2 ** 39, 1)).toEqual(new Uint8Array(1))
    expect(() => Mapping.anonymous(page, { huge: true } as never)).toThrow(/no option "huge"/)
  })

  it('refuses every use after close, which may be repeated', () => {
    const mapping = Mapping.anonymous(page)
    const bytes = mapping.view(0, page)
    expect(mappedAddress(bytes)).toBeTypeOf('bigint')
    mapping.close()
    mapping.close()
    for (const use of [
      () => mapping.view(0, 1),
      () => mapping.giveBack(0, page),
      () => mapping.remove(0, page),
      () => mapping.populate(0, page),
    ]) {
      expect(codeOf(use)).toBe('EBADF')
    }
    expect(mappedAddress(bytes)).toBeUndefined()
  })

  it('is disposed by using', () => {
    let bytes: Uint8Array
    {
      using mapping = Mapping.anonymous(page)
      bytes = mapping.view(0, page)
      bytes[0] = 1
    }
    expect(bytes[0]).toBe(0)
  })
})

describe('Mapping.file', () => {
  it('shares memory with the file, gives pages back and punches holes', () => {
    const fd = memfd(32 * MiB)
    allocate(fd, 0, 32 * MiB)
    const mapping = closing(
      Mapping.file(fd, { lengthBytes: 16 * MiB, offsetBytes: 16 * MiB, hugePages: true }),
    )
    const bytes = mapping.view(0, 16 * MiB)
    const before = resident('RssShmem')
    bytes.fill(7)
    expect(resident('RssShmem') - before).toBeGreaterThan(15 * MiB)
    const read = new Uint8Array(1)
    readSync(fd, read, 0, 1, 16 * MiB + 5)
    expect(read[0]).toBe(7)
    writeSync(fd, new Uint8Array([8]), 0, 1, 16 * MiB + 6)
    expect(bytes[6]).toBe(8)

    mapping.giveBack(0, 16 * MiB)
    expect(resident('RssShmem') - before).toBeLessThan(2 * MiB)
    expect(bytes[5]).toBe(7)

    const blocks = fstatSync(fd).blocks
    mapping.remove(4 * MiB, 8 * MiB)
    expect((blocks - fstatSync(fd).blocks) * 512).toBe(8 * MiB)
    expect(bytes[4 * MiB - 1]).toBe(7)
    expect(bytes[4 * MiB]).toBe(0)
    expect(bytes[12 * MiB]).toBe(7)
  })

  it('outlives its descriptor and reads zero after close, while the file keeps its bytes', () => {
    const fd = memfd(page)
    const other = openSync(`/proc/self/fd/${fd}`, 'r')
    undo.push(() => closeSync(other))
    const mapping = Mapping.file(fd, { lengthBytes: page })
    const bytes = mapping.view(0, page)
    bytes.fill(3)
    mapping.close()
    expect(bytes[0]).toBe(0)
    bytes.fill(4)
    const stored = new Uint8Array(page)
    readSync(other, stored, 0, page, 0)
    expect(stored).toEqual(new Uint8Array(page).fill(3))
  })

  it('refuses a range that the file does not have, a closed descriptor and one that cannot be written', () => {
    const fd = memfd(2 * page)
    expect(() => Mapping.file(fd, { lengthBytes: 2 * page + 1 })).toThrow(/the file has/)
    expect(() => Mapping.file(fd, { lengthBytes: page, offsetBytes: 2 * page })).toThrow(RangeError)
    expect(() => Mapping.file(fd, { lengthBytes: page, offsetBytes: 1 })).toThrow(
      /multiple of the system's page/,
    )
    expect(() => Mapping.file(-1, { lengthBytes: page })).toThrow(RangeError)
    expect(codeOf(() => Mapping.file(1_000_000, { lengthBytes: page }))).toBe('EBADF')
    expect(() => Mapping.file(fd, { lengthBytes: page, offset: 0 } as never)).toThrow(/no option "offset"/)
    const readOnly = openSync(`/proc/self/fd/${fd}`, 'r')
    undo.push(() => closeSync(readOnly))
    expect(codeOf(() => Mapping.file(readOnly, { lengthBytes: page }))).toBe('EACCES')
    expect(codeOf(() => Mapping.file(readOnly, { lengthBytes: page, hugePages: true }))).toBe('EACCES')
  })

  it('cannot lose its backing: a memfd grows but never shrinks', () => {
    const fd = memfd(2 * page)
    ftruncateSync(fd, 4 * page)
    expect(codeOf(() => ftruncateSync(fd, page))).toBe('EPERM')
  })
})

describe('where the kernel counts memory in advance (vm.overcommit_memory = 2)', () => {
  it.each(['private', 'shared'])('retires %s memory without asking for more', (kind) => {
    const fd = kind === 'shared' ? memfd(MiB) : -1
    const region = mapRegion(fd, 0, MiB, false)
    const buffer = libcFor('view').view(region.base, MiB)
    place(buffer, region, region.base)
    Object.assign(region, { viewedFrom: 0, viewedTo: MiB })
    const bytes = new Uint8Array(buffer).fill(1)
    retire(region, true)
    expect(bytes.every((byte) => byte === 0)).toBe(true)
    bytes.fill(2)
    expect(region.state).toBe('closed')
  })
})

describe('mappedAddress', () => {
  it('knows memory of mappings and nothing else', () => {
    const mapping = closing(Mapping.anonymous(4 * page))
    const bytes = mapping.view(page, 2 * page)
    const address = mappedAddress(bytes)!
    expect(address % BigInt(page)).toBe(0n)
    expect(mappedAddress(bytes.subarray(5, 6))).toBe(address + 5n)
    expect(mappedAddress(Buffer.from(bytes.buffer, 7, 1))).toBe(address + 7n)
    expect(mappedAddress(mapping.view(0, 1))).toBe(address - BigInt(page))
    expect(mappedAddress(bytes.subarray(5, 5))).toBeUndefined()
    expect(mappedAddress(new Uint8Array(8))).toBeUndefined()
    expect(mappedAddress(Buffer.from('text'))).toBeUndefined()
    expect(mappedAddress(bytes.slice())).toBeUndefined()
  })
})

describe('files', () => {
  const onDisk = (): number => {
    const directory = mkdtempSync(join(tmpdir(), 'native-'))
    undo.push(() => rmSync(directory, { recursive: true }))
    const fd = openSync(join(directory, 'file'), 'w+')
    undo.push(() => closeSync(fd))
    return fd
  }

  it.each([
    ['a memfd', () => memfd(0)],
    ['a file on disk', onDisk],
  ])('allocates and punches %s, visibly in its blocks', (_name, open) => {
    const fd = open()
    const empty = fstatSync(fd).blocks
    allocate(fd, 0, MiB)
    expect(fstatSync(fd).size).toBe(MiB)
    expect((fstatSync(fd).blocks - empty) * 512).toBeGreaterThanOrEqual(MiB)
    writeSync(fd, new Uint8Array(MiB).fill(6), 0, MiB, 0)
    allocate(fd, 0, 2 * MiB)
    const full = fstatSync(fd).blocks
    punchHole(fd, 64 * 1024, 512 * 1024)
    expect((full - fstatSync(fd).blocks) * 512).toBe(512 * 1024)
    expect(fstatSync(fd).size).toBe(2 * MiB)
    const read = new Uint8Array(MiB)
    readSync(fd, read, 0, MiB, 0)
    expect(read.findIndex((byte) => byte !== 6)).toBe(64 * 1024)
    expect(read.lastIndexOf(0)).toBe((64 + 512) * 1024 - 1)
  })

  it('reaches beyond 4 GiB', () => {
    const fd = onDisk()
    const far = 5 * 1024 * MiB
    allocate(fd, far, 64 * 1024)
    expect(fstatSync(fd).size).toBe(far + 64 * 1024)
    punchHole(fd, far, 64 * 1024)
    expect(fstatSync(fd).blocks * 512).toBeLessThan(64 * 1024)
  })

  it('refuses nonsense', () => {
    const fd = memfd(page)
    for (const call of [allocate, punchHole]) {
      expect(() => call(-1, 0, 1)).toThrow(RangeError)
      expect(() => call(fd, -1, 1)).toThrow(RangeError)
      expect(() => call(fd, 0, 0)).toThrow(RangeError)
      expect(() => call(fd, 0, 1.5)).toThrow(RangeError)
      expect(() => call(fd, Number.MAX_SAFE_INTEGER, 1)).toThrow(RangeError)
      expect(codeOf(() => call(1_000_000, 0, 1))).toBe('EBADF')
    }
    expect(() => createMemfd('a\0b')).toThrow(RangeError)
    expect(() => createMemfd('x'.repeat(250))).toThrow(RangeError)
    expect(() => createMemfd(1 as never)).toThrow(TypeError)
  })

  it('reports failures as node:fs does', () => {
    try {
      allocate(1_000_000, 0, 1)
      expect.unreachable()
    } catch (error) {
      expect(error).toMatchObject({ code: 'EBADF', errno: -9, syscall: 'fallocate' })
      expect(String(error)).toMatch(/^Error: EBADF: bad file descriptor/)
    }
  })
})
