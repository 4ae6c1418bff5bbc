import { readFileSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { systemError } from './errors.ts'
import { type Libc, libcFor } from './libc.ts'

/**
 * Regions: ranges of address space that mappings own.
 *
 *     open ──close()──▶ closing ──last ring request completes──▶ closed
 *       └──────close() with nothing in flight──────────────────────▲
 *
 * JavaScript cannot tell when the last view of a mapping is gone: `ArrayBuffer.prototype.transfer` moves a view's
 * memory to an ArrayBuffer that nobody announced, and calls of `node:fs` in flight hold addresses. So address space
 * from which a view was handed out is never unmapped and never used again. Closing replaces what is mapped there by
 * untouched zero pages: the memory is back with the system at once, and a view that is used afterwards reads zeros.
 * All such ranges have the same attributes, so the kernel merges neighbours into one entry of its table.
 */
export interface Region {
  readonly base: number
  /** Whole system pages. */
  readonly lengthBytes: number
  readonly shared: boolean
  state: 'open' | 'closing' | 'closed'
  /** Ring requests under way in this region. */
  inFlight: number
  /** The part from which views were handed out, as offsets; empty when `viewedFrom` is not below `viewedTo`. */
  viewedFrom: number
  viewedTo: number
}

/** Where an ArrayBuffer that `viewRegion` made lies. */
export interface Placement {
  readonly region: Region
  readonly address: number
}

const placements = new WeakMap<ArrayBufferLike, Placement>()

/** Where the memory of `span` lies, or undefined when it is not memory of a mapping. */
export function placementOf(span: Uint8Array): Placement | undefined {
  return placements.get(span.buffer)
}

/** Remembers that `buffer` is the memory at `address`. */
export function place(buffer: ArrayBuffer, region: Region, address: number): void {
  placements.set(buffer, { region, address })
}

/** Rings tell here whether they have a request under way in [from, to) of the address space. */
export const busyChecks = new Set<(from: number, to: number) => boolean>()

/** Throws `EBUSY` when a ring request is under way in [from, to) of `region`. */
export function assertNotInFlight(region: Region, from: number, to: number, syscall: string): void {
  if (region.inFlight === 0) return
  for (const isBusy of busyChecks) {
    if (isBusy(region.base + from, region.base + to)) {
      throw systemError(16, syscall, `a ring request is under way between ${from} and ${to} of the mapping`)
    }
  }
}

/** A ring request in `region` completed: what `close()` left undone for its sake is done now. */
export function requestDone(region: Region): void {
  region.inFlight--
  if (region.inFlight === 0 && region.state === 'closing') {
    try {
      retire(region)
    } catch {
      // Stays 'closing': whoever calls close() again sees the error.
    }
  }
}

const protectionReadWrite = 3
const mapShared = 0x01
const mapPrivate = 0x02
const mapFixed = 0x10
const mapAnonymous = 0x20
const mapNoReserve = 0x4000
const adviceDontNeed = 4
const adviceHugePage = 14
const hugePageBytes = 2 * 1024 * 1024
const largeBytes = 1024 * 1024 * 1024

/** Maps `wantedBytes` (whole pages) of `fd` from `offsetBytes`, or of private memory where `fd` is −1. */
export function mapRegion(fd: number, offsetBytes: number, wantedBytes: number, hugePages: boolean): Region {
  const libc = libcFor('mmap')
  const shared = fd >= 0
  const kind = shared ? mapShared : mapPrivate | mapAnonymous | mapNoReserve
  const aligned = hugePages && wantedBytes >= hugePageBytes
  const lengthBytes = aligned ? Math.ceil(wantedBytes / hugePageBytes) * hugePageBytes : wantedBytes
  const detail = `${lengthBytes} bytes`
  let base: number
  if (aligned) {
    // Huge pages need address and file offset to agree modulo their size, which older kernels do not see to. The
    // highest such address leaves no gap to the mapping before.
    const reserved = reserve(libc, lengthBytes + hugePageBytes, detail)
    const skew = (reserved - offsetBytes) % hugePageBytes
    base = reserved + hugePageBytes - (skew < 0 ? skew + hugePageBytes : skew)
    const mapped = libc.mmap(base, lengthBytes, protectionReadWrite, kind | mapFixed, fd, offsetBytes)
    const error = mapped < 0 ? libc.lastError('mmap', detail) : undefined
    const end = reserved + lengthBytes + hugePageBytes
    if (error !== undefined) {
      libc.munmap(reserved, end - reserved)
      throw error
    }
    if (base > reserved) libc.munmap(reserved, base - reserved)
    if (end > base + lengthBytes) libc.munmap(base + lengthBytes, end - base - lengthBytes)
  } else {
    base = libc.mmap(0, lengthBytes, protectionReadWrite, kind, fd, offsetBytes)
    if (base < 0) throw libc.lastError('mmap', detail)
  }
  // A wish: kernels without huge pages refuse it, and all works as well without.
  if (hugePages) libc.madvise(base, lengthBytes, adviceHugePage)
  return { base, lengthBytes, shared, state: 'open', inFlight: 0, viewedFrom: lengthBytes, viewedTo: 0 }
}

function reserve(libc: Libc, lengthBytes: number, detail: string): number {
  const address = libc.mmap(0, lengthBytes, 0, mapPrivate | mapAnonymous | mapNoReserve, -1, 0)
  if (address < 0) throw libc.lastError('mmap', detail)
  return address
}

const leftOpen = new Set<Region>()
let listening = false

/** What a worker leaves open would stay with the process: this goes back when the worker ends by itself. */
export function retireAtWorkerExit(region: Region): void {
  if (isMainThread) return
  leftOpen.add(region)
  if (listening) return
  listening = true
  process.on('exit', () => {
    for (const each of leftOpen) {
      if (each.inFlight > 0) continue
      try {
        retire(each)
      } catch {
        // It stays as it is, harmless.
      }
    }
  })
}

/** Gives all memory of `region` back; nothing may be in flight. Throws when the kernel refuses; may be called again. */
export function retire(region: Region, strict = isOvercommitStrict()): void {
  const libc = libcFor('munmap')
  const { base, lengthBytes, viewedFrom, viewedTo } = region
  if (viewedFrom >= viewedTo) {
    if (libc.munmap(base, lengthBytes) < 0) throw libc.lastError('munmap')
  } else {
    // Only large parts without views are unmapped: small holes would keep retired neighbours from merging.
    const from = viewedFrom < largeBytes ? 0 : viewedFrom
    const to = lengthBytes - viewedTo < largeBytes ? lengthBytes : viewedTo
    replaceByZeros(libc, region, base + from, to - from, strict)
    // Failing here would leave untouched address space behind, nothing more.
    if (from > 0) libc.munmap(base, from)
    if (to < lengthBytes) libc.munmap(base + to, lengthBytes - to)
  }
  region.state = 'closed'
  leftOpen.delete(region)
}

function replaceByZeros(
  libc: Libc,
  region: Region,
  address: number,
  lengthBytes: number,
  strict: boolean,
): void {
  if (!strict) {
    const flags = mapPrivate | mapAnonymous | mapNoReserve | mapFixed
    const mapped = libc.mmap(address, lengthBytes, protectionReadWrite, flags, -1, 0)
    if (mapped < 0) throw libc.lastError('mmap')
  } else if (region.shared) {
    // Where the kernel counts every private page in advance, an empty file of our own costs nothing.
    const fd = libc.memfd_create('retired', 1)
    if (fd < 0) throw libc.lastError('memfd_create')
    const sized = libc.ftruncate(fd, lengthBytes)
    const mapped =
      sized < 0 ? sized : libc.mmap(address, lengthBytes, protectionReadWrite, mapShared | mapFixed, fd, 0)
    const error = mapped < 0 ? libc.lastError('mmap') : undefined
    libc.close(fd)
    if (error !== undefined) throw error
  } else if (libc.madvise(address, lengthBytes, adviceDontNeed) < 0) {
    throw libc.lastError('madvise')
  }
}

/** Whether the kernel promises no memory it does not have (vm.overcommit_memory = 2). */
function isOvercommitStrict(): boolean {
  try {
    return readFileSync('/proc/sys/vm/overcommit_memory', 'latin1').trim() === '2'
  } catch {
    return false
  }
}
