import { fstatSync } from 'node:fs'
import { markAsUntransferable } from 'node:worker_threads'
import { assertBytes, assertFd, assertInteger, assertKnownOptions } from './checks.ts'
import { missing, systemError } from './errors.ts'
import { libcFor } from './libc.ts'
import {
  assertNotInFlight,
  mapRegion,
  place,
  placementOf,
  type Region,
  retire,
  retireAtWorkerExit,
} from './region.ts'

const adviceDontNeed = 4
const adviceRemove = 9
const advicePopulateWrite = 23
const interrupted = 4
const again = 11

/** Size of the system's pages in bytes (4096 on x64; 4096, 16384 or 65536 on arm64). Throws `ENOSYS`. */
export function systemPageBytes(): number {
  pageBytes ??= libcFor('getpagesize').getpagesize()
  return pageBytes
}
let pageBytes: number | undefined

/**
 * Memory mapped into the process. No order of calls makes a view of it dangerous: see `region.ts`. A mapping that is
 * dropped without `close()` keeps its memory until the process ends.
 */
export class Mapping implements Disposable {
  readonly lengthBytes: number
  readonly #region: Region

  private constructor(region: Region, lengthBytes: number) {
    this.#region = region
    this.lengthBytes = lengthBytes
    retireAtWorkerExit(region)
  }

  /**
   * Private memory of `lengthBytes`, zero, taken from the system page by page as it is touched. `hugePages` asks for
   * huge pages, as a wish. Errors: `ENOMEM` (no address space), `ENOSYS`.
   */
  static anonymous(lengthBytes: number, options: { readonly hugePages?: boolean } = {}): Mapping {
    assertKnownOptions(options, ['hugePages'], 'Mapping.anonymous')
    assertLength(lengthBytes)
    return new Mapping(mapRegion(-1, 0, wholePages(lengthBytes), options.hugePages === true), lengthBytes)
  }

  /**
   * Shared memory of the file `fd`, which may be closed afterwards. The file must be at least as long as what is
   * mapped and must never become shorter (`createMemfd` makes files that cannot), and its pages must be allocated
   * (`allocate` or `populate`) before they are written: touching what has no backing ends the process (SIGBUS).
   * `RangeError` when the file is too short. Errors: `EACCES` (not open for reading and writing), `ENOMEM`, `ENOSYS`.
   */
  static file(
    fd: number,
    options: { readonly lengthBytes: number; readonly offsetBytes?: number; readonly hugePages?: boolean },
  ): Mapping {
    assertKnownOptions(options, ['lengthBytes', 'offsetBytes', 'hugePages'], 'Mapping.file')
    const { lengthBytes, offsetBytes = 0 } = options
    assertFd(fd)
    assertLength(lengthBytes)
    assertBytes(offsetBytes, 'offsetBytes')
    assertAligned(offsetBytes, 'offsetBytes')
    const sizeBytes = fstatSync(fd).size
    if (offsetBytes + lengthBytes > sizeBytes) {
      throw new RangeError(
        `the file has ${sizeBytes} bytes; ${lengthBytes} bytes from offset ${offsetBytes} cannot be mapped`,
      )
    }
    const hugePages = options.hugePages === true
    return new Mapping(mapRegion(fd, offsetBytes, wholePages(lengthBytes), hugePages), lengthBytes)
  }

  /**
   * The memory from `offsetBytes` as a Uint8Array over an ArrayBuffer of its own. Costs some 100 µs: make one per
   * chunk and keep it. It cannot be transferred to another thread. Errors: `EBADF` after `close()`.
   */
  view(offsetBytes: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    const region = this.#opened('view')
    this.#assertRange(offsetBytes, lengthBytes)
    const address = region.base + offsetBytes
    let external: ArrayBuffer
    try {
      external = libcFor('view').view(address, lengthBytes)
    } catch (error) {
      throw missing('view', error instanceof Error ? error.message : String(error))
    }
    // Node detaches external buffers when it ends, and aborts when a user marked one as untransferable. The buffer
    // that the memory moves to here is none that Node knows, and the mark keeps `transfer` lists from taking it.
    const buffer = external.transfer()
    markAsUntransferable(buffer)
    const pageStart = offsetBytes - (offsetBytes % systemPageBytes())
    region.viewedFrom = Math.min(region.viewedFrom, pageStart)
    region.viewedTo = Math.max(region.viewedTo, wholePages(offsetBytes + lengthBytes))
    place(buffer, region, address)
    return new Uint8Array(buffer)
  }

  /**
   * Gives whole system pages back to the system. Private memory reads zero afterwards; of a file only this process's
   * hold on the pages goes and the bytes stay. Some 70 µs per MiB, less with huge pages. Errors: `EBUSY` while a ring
   * request is under way in the range, `EBADF` after `close()`.
   */
  giveBack(offsetBytes: number, lengthBytes: number): void {
    this.#advise(offsetBytes, lengthBytes, adviceDontNeed)
  }

  /**
   * Punches whole system pages out of the mapped file: they read zero and must be allocated again before they are
   * written. Some 180 µs per MiB. Errors: `EBUSY` while a ring request is under way in the range, `EINVAL` on private
   * memory, `EBADF` after `close()`.
   */
  remove(offsetBytes: number, lengthBytes: number): void {
    this.#advise(offsetBytes, lengthBytes, adviceRemove)
  }

  /**
   * Takes memory for whole system pages now, with huge pages where they were asked for; contents stay. A file's pages
   * are allocated on the way: `EFAULT` (never SIGBUS) where its file system is full. Errors: `ENOMEM`, `EINVAL` on
   * kernels before 5.14, `EBADF` after `close()`.
   */
  populate(offsetBytes: number, lengthBytes: number): void {
    this.#advise(offsetBytes, lengthBytes, advicePopulateWrite)
  }

  /**
   * Gives all memory back, at once or, while ring requests are under way in it, when the last of them completes.
   * Idempotent. Views stay harmless for ever: they read zeros; what is written through one is memory that nobody gives
   * back. Their addresses are never used again, so a process can close 128 TiB of viewed mappings in its life.
   */
  close(): void {
    const region = this.#region
    if (region.state === 'closed') return
    region.state = 'closing'
    if (region.inFlight === 0) retire(region)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #opened(syscall: string): Region {
    if (this.#region.state !== 'open') throw systemError(9, syscall, 'the mapping is closed')
    return this.#region
  }

  #assertRange(offsetBytes: number, lengthBytes: number): void {
    assertInteger(offsetBytes, 'offsetBytes', 0, this.lengthBytes - 1)
    assertInteger(lengthBytes, 'lengthBytes', 1, this.lengthBytes - offsetBytes)
  }

  #advise(offsetBytes: number, lengthBytes: number, advice: number): void {
    const region = this.#opened('madvise')
    this.#assertRange(offsetBytes, lengthBytes)
    assertAligned(offsetBytes, 'offsetBytes')
    const end = offsetBytes + lengthBytes
    if (end !== this.lengthBytes) assertAligned(lengthBytes, 'lengthBytes')
    if (advice !== advicePopulateWrite) assertNotInFlight(region, offsetBytes, end, 'madvise')
    const libc = libcFor('madvise')
    while (libc.madvise(region.base + offsetBytes, wholePages(lengthBytes), advice) < 0) {
      const errno = libc.errno()
      if (errno !== interrupted && errno !== again) {
        throw systemError(errno, 'madvise', `${lengthBytes} bytes from offset ${offsetBytes}`)
      }
    }
  }
}

/**
 * Address of the first byte of `span` when it is memory of an open mapping, else undefined: the only memory that a
 * ring may touch. Costs well below a microsecond.
 */
export function mappedAddress(span: Uint8Array): bigint | undefined {
  const placement = placementOf(span)
  if (placement === undefined || placement.region.state !== 'open' || span.byteLength === 0) return undefined
  return BigInt(placement.address + span.byteOffset)
}

/** Whether `span` is memory of an open mapping: `mappedAddress` without the address, for paths that are taken often. */
export function isMapped(span: Uint8Array): boolean {
  const placement = placementOf(span)
  return placement !== undefined && placement.region.state === 'open' && span.byteLength > 0
}

function wholePages(bytes: number): number {
  const page = systemPageBytes()
  return Math.ceil(bytes / page) * page
}

/** Half of a 47-bit address space: more cannot be mapped in any case, and sums stay exact. */
const maxLengthBytes = 2 ** 46

function assertLength(lengthBytes: number): void {
  assertInteger(lengthBytes, 'lengthBytes', 1, maxLengthBytes)
}

function assertAligned(bytes: number, name: string): void {
  if (bytes % systemPageBytes() !== 0) {
    throw new RangeError(
      `${name} is ${bytes}; it must be a multiple of the system's page of ${systemPageBytes()} bytes`,
    )
  }
}
