import { isMainThread } from 'node:worker_threads'
import { afterInput, startTimer } from './host.ts'
import { type Libc, libcFor, type PollHandle } from './libc.ts'
import { mapRegion, type Region, retire } from './region.ts'

/** Tells a ring that results have come. Keeps the process alive only while the ring waits for something. */
export interface Waiter {
  /** Something is in flight and nothing has come yet: call `ready` when it has. */
  wait(): void
  /** Nothing is in flight any more. */
  rest(): void
  /** Ends the watching, and calls `done` when nothing looks at the ring any more. */
  close(done: () => void): void
}

/** The waiter that is right here. `wake` makes a result appear in the ring. */
export function openWaiter(fd: number, ready: () => void, wake: () => void): Waiter {
  // A worker can be terminated without a word, and koffi's handles do not survive that: see `closeAtExit`.
  const poll = isMainThread && !exiting ? libcFor('poll').poll : undefined
  return poll === undefined ? waitInThread(fd, ready, wake) : watchDescriptor(poll, fd, ready)
}

/**
 * koffi calls back into JavaScript whenever a watched descriptor has something, even when Node is tearing the
 * environment down, and that ends the process. So nothing is watched any more when the last JavaScript has run.
 */
const watched = new Set<PollHandle>()
let exiting = false
let listening = false

function closeAtExit(handle: PollHandle): void {
  watched.add(handle)
  if (listening) return
  listening = true
  process.on('exit', () => {
    exiting = true
    for (const each of watched) each.close()
    watched.clear()
  })
}

/**
 * Watches the ring's descriptor with the event loop itself: no thread waits, no thread is woken. The loop calls from
 * outside any callback scope, where promises would not run; an immediate comes later in the same turn of the loop.
 */
function watchDescriptor(poll: NonNullable<Libc['poll']>, fd: number, ready: () => void): Waiter {
  let scheduled = false
  let waiting = false
  const run = () => {
    scheduled = false
    ready()
  }
  const handle = poll(fd, () => {
    if (scheduled) return
    scheduled = true
    afterInput(run)
  })
  handle.unref()
  closeAtExit(handle)
  return {
    wait() {
      if (!waiting) handle.ref()
      waiting = true
    },
    rest() {
      if (waiting) handle.unref()
      waiting = false
    },
    close(done) {
      if (watched.delete(handle)) handle.close()
      done()
    },
  }
}

/**
 * A thread does not wait longer than this at a time: Node cannot end, nor a worker be terminated, while one of its
 * threads is in a call.
 */
const longestWaitNs = 50_000_000n

/**
 * Waits in one thread of libuv's pool, where the descriptor cannot be watched. The thread may come to its call late,
 * when the results it was sent for have long been seen; so a ring that comes to rest wakes it.
 */
export function waitInThread(fd: number, ready: () => void, wake: () => void): Waiter {
  const libc = libcFor('io_uring_enter')
  const region = waitArgument(libc)
  let waiting = false
  let afterWait: (() => void) | undefined
  const returned = () => {
    waiting = false
    if (afterWait === undefined) ready()
    else afterWait()
  }
  return {
    wait() {
      if (waiting) return
      waiting = true
      try {
        libc.ioUringWait(fd, region.base, returned)
      } catch {
        // Too many calls of others are on their way through koffi: look again soon.
        startTimer(returned, 1)
      }
    },
    rest() {
      if (waiting) wake()
    },
    close(done) {
      afterWait = () => {
        retire(region)
        done()
      }
      if (!waiting) afterWait()
    },
  }
}

/** struct io_uring_getevents_arg, with the struct __kernel_timespec that it points to behind it. */
function waitArgument(libc: Libc): Region {
  const region = mapRegion(-1, 0, libc.getpagesize(), false)
  const fields = new DataView(libc.view(region.base, 64))
  region.viewedFrom = 0
  region.viewedTo = region.lengthBytes
  fields.setBigUint64(16, BigInt(region.base + 32), true)
  fields.setBigUint64(40, longestWaitNs, true)
  return region
}
