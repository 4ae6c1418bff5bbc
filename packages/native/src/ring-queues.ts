import { assertInteger } from './checks.ts'
import { missing, systemError } from './errors.ts'
import { ioUringGetEvents, type Libc, libcFor } from './libc.ts'
import { mapRegion, type Region, retire } from './region.ts'
import { environmentValue, otherRuntime } from './runtime.ts'

/**
 * The two queues that a ring shares with the kernel, as typed arrays over mapped memory.
 *
 *     JavaScript ──entries──▶ submission queue ──io_uring_enter──▶ kernel
 *     JavaScript ◀──results── completion queue ◀──────────────────── kernel
 *
 * Each queue is a ring with a head (the reader's) and a tail (the writer's), counters that only grow and wrap at 2^32.
 * The kernel may write the completion queue at any time. The contents of an entry must be seen before the counter
 * that announces it, so counters are read and written with Atomics: V8 makes these real acquire loads and release
 * stores, whatever memory is below.
 */
export interface Queues {
  readonly fd: number
  /** Entries of the submission queue. The completion queue has twice as many and cannot overflow. */
  readonly entries: number
  /** Writes one request behind the others; the caller sees to it that there is room. */
  push(
    operation: number,
    fd: number,
    address: number,
    lengthBytes: number,
    offset: number,
    flags: number,
    tag: number,
  ): void
  /** Hands what was pushed to the kernel. Returns 0, or the errno for which some of it was not taken. */
  submit(): number
  /** Requests pushed and not yet taken by the kernel. */
  readonly unsubmitted: number
  /** Takes back the requests that were not taken, and returns their tags. */
  takeBack(): number[]
  /** Takes up to `most` results out and calls `settle` for each; returns how many there were. */
  drain(most: number, settle: (tag: number, result: number) => void): number
  readonly hasResults: boolean
  /** Gives everything back; nothing may be in flight. `lost`: the descriptor is no longer ours to close. */
  close(lost?: boolean): void
}

export const operationNoop = 0
export const operationSync = 3
export const operationRead = 22
export const operationWrite = 23
export const syncDataOnly = 1

/** IOSQE_ASYNC: a thread of the kernel takes the request in, and not the one that submits it. */
const throughWorker = 1 << (8 + 4)
/** A long write may wait for locks and blocks of the file system before it is under way: up to 80 ms of the event loop. */
const workerFromBytes = 64 * 1024

const maxEntries = 4096
const offsetSubmissionQueue = 0
const offsetSubmissionEntries = 0x10000000
// Single mapping, no dropped results, and waiting with a timeout (which came last, in 5.11).
const neededFeatures = 0x1 | 0x2 | 0x100
const interrupted = 4
const invalid = 22
/** Offset of the flags in struct io_uring_params. */
const setupFlags = 8
/**
 * IORING_SETUP_COOP_TASKRUN (Linux 5.19; a wish): results are written when the thread enters the kernel anyway, which
 * each turn of the event loop does, rather than that it is interrupted for each. Saves a tenth of the CPU of small reads.
 */
const cooperativeResults = 1 << 8

/** Opens the queues. Throws `ENOSYS`, `EPERM`, `ENOMEM`, `EMFILE` as the kernel says. */
export function openQueues(entriesWanted: number): Queues {
  assertInteger(entriesWanted, 'entries', 1, maxEntries)
  const libc = libcFor('io_uring_setup')
  if (environmentValue('SPILLWAY_DISABLE_IO_URING') === '1') {
    throw missing('io_uring_setup', 'switched off by SPILLWAY_DISABLE_IO_URING=1')
  }
  const runtime = otherRuntime()
  if (runtime !== undefined) {
    // koffi watches it with libuv: Bun 1.4 ends the process at the call, and Deno 2.9 never calls back.
    throw missing('io_uring_setup', `${runtime} cannot watch the descriptor of a ring`)
  }
  const params = new Uint8Array(120)
  params[setupFlags + 1] = cooperativeResults >> 8
  let fd = libc.ioUringSetup(entriesWanted, params)
  if (fd < 0 && libc.errno() === invalid) {
    fd = libc.ioUringSetup(entriesWanted, params.fill(0))
  }
  if (fd < 0) throw libc.lastError('io_uring_setup', whyForbidden(libc.errno()))
  const regions: Region[] = []
  try {
    return mapQueues(libc, fd, new DataView(params.buffer), regions)
  } catch (error) {
    for (const region of regions) retire(region)
    libc.close(fd)
    throw error
  }
}

function whyForbidden(errno: number): string | undefined {
  if (errno === 1) return 'forbidden here: by kernel.io_uring_disabled or by the container'
  if (errno === 38) return 'the kernel lacks it or the container hides it'
  return undefined
}

function mapQueues(libc: Libc, fd: number, params: DataView, regions: Region[]): Queues {
  const field = (offset: number) => params.getUint32(offset, true)
  // struct io_uring_params
  const entries = field(0)
  const resultEntries = field(4)
  const features = field(20)
  if ((features & neededFeatures) !== neededFeatures)
    throw missing('io_uring_setup', 'needs Linux 5.11 or later')
  const submission = { tail: field(44), mask: field(48), array: field(64) }
  const completion = { head: field(80), tail: field(84), mask: field(88), results: field(100) }

  const map = (offset: number, lengthBytes: number): Int32Array => {
    const region = mapRegion(fd, offset, lengthBytes, false)
    regions.push(region)
    region.viewedFrom = 0
    region.viewedTo = region.lengthBytes
    return new Int32Array(libc.view(region.base, region.lengthBytes))
  }
  const wholePages = (bytes: number) => Math.ceil(bytes / libc.getpagesize()) * libc.getpagesize()
  const ringBytes = Math.max(submission.array + entries * 4, completion.results + resultEntries * 16)
  const ring = map(offsetSubmissionQueue, wholePages(ringBytes))
  const requests = map(offsetSubmissionEntries, wholePages(entries * 64))

  const submissionTail = submission.tail / 4
  const submissionMask = ring[submission.mask / 4] as number
  const completionHead = completion.head / 4
  const completionTail = completion.tail / 4
  const completionMask = ring[completion.mask / 4] as number
  const results = completion.results / 4
  // The indirection between queue and entries is not needed: entry n is at place n, for good.
  for (let index = 0; index < entries; index++) ring[submission.array / 4 + index] = index
  let tail = 0
  let unsubmitted = 0

  return {
    fd,
    entries,
    push(operation, file, address, lengthBytes, offset, flags, tag) {
      // struct io_uring_sqe
      const at = (tail & submissionMask) * 16
      const isLong = operation === operationWrite && lengthBytes >= workerFromBytes
      requests[at] = isLong ? operation | throughWorker : operation
      requests[at + 1] = file
      requests[at + 2] = offset | 0
      requests[at + 3] = Math.floor(offset / 0x100000000)
      requests[at + 4] = address | 0
      requests[at + 5] = Math.floor(address / 0x100000000)
      requests[at + 6] = lengthBytes
      requests[at + 7] = flags
      requests[at + 8] = tag
      requests[at + 9] = 0
      requests[at + 10] = 0
      requests[at + 11] = 0
      requests[at + 12] = 0
      requests[at + 13] = 0
      requests[at + 14] = 0
      requests[at + 15] = 0
      tail = (tail + 1) | 0
      unsubmitted++
    },
    submit() {
      Atomics.store(ring, submissionTail, tail)
      while (unsubmitted > 0) {
        const taken = libc.ioUringEnter(fd, unsubmitted, 0, 0)
        if (taken > 0) {
          unsubmitted -= taken
        } else {
          const errno = taken < 0 ? libc.errno() : 11
          if (errno !== interrupted) return errno
        }
      }
      return 0
    },
    get unsubmitted() {
      return unsubmitted
    },
    takeBack() {
      const tags: number[] = []
      for (; unsubmitted > 0; unsubmitted--) {
        tail = (tail - 1) | 0
        tags.push(requests[(tail & submissionMask) * 16 + 8] as number)
      }
      Atomics.store(ring, submissionTail, tail)
      return tags.reverse()
    },
    drain(most, settle) {
      let head = ring[completionHead] as number
      const end = Atomics.load(ring, completionTail)
      let count = 0
      while (head !== end && count < most) {
        const at = results + (head & completionMask) * 4
        const tag = ring[at] as number
        const result = ring[at + 2] as number
        head = (head + 1) | 0
        count++
        // The place is the kernel's again before anyone hears of the result, and may submit anew.
        Atomics.store(ring, completionHead, head)
        settle(tag, result)
      }
      return count
    },
    get hasResults() {
      return ring[completionHead] !== Atomics.load(ring, completionTail)
    },
    close(lost = false) {
      for (const region of regions) retire(region)
      if (!lost) libc.close(fd)
    },
  }
}

/** Whether a ring really works here: one request that does nothing goes through it. Throws what stands against it. */
export function probeQueues(): void {
  const queues = openQueues(1)
  try {
    queues.push(operationNoop, -1, 0, 0, 0, 0, 77)
    const errno = queues.submit()
    if (errno !== 0) throw systemError(errno, 'io_uring_enter')
    let answer: number | undefined
    const take = (tag: number, result: number) => {
      answer = tag === 77 ? result : -22
    }
    if (queues.drain(1, take) === 0) {
      libcFor('io_uring_enter').ioUringEnter(queues.fd, 0, 1, ioUringGetEvents)
      queues.drain(1, take)
    }
    if (answer !== 0) throw missing('io_uring_enter', 'a request that does nothing did not come back')
  } finally {
    queues.close()
  }
}
