import { libcFor } from './libc.ts'

/** Tells a ring that results have come. Keeps the process alive only while the ring waits for something. */
export interface Waiter {
  /** Something is in flight and nothing has come yet: call `ready` when it has. */
  wait(): void
  /** Nothing is in flight any more. */
  rest(): void
  close(): void
}

/**
 * Watches the ring's descriptor with the event loop itself: no thread waits, no thread is woken. The loop calls from
 * outside any callback scope, where promises would not run; an immediate comes later in the same turn of the loop.
 */
export function watchDescriptor(fd: number, ready: () => void): Waiter | undefined {
  const poll = libcFor('poll').poll
  if (poll === undefined) return undefined
  let scheduled = false
  const run = () => {
    scheduled = false
    ready()
  }
  const handle = poll(fd, () => {
    if (scheduled) return
    scheduled = true
    setImmediate(run)
  })
  handle.unref()
  let waiting = false
  return {
    wait() {
      if (!waiting) handle.ref()
      waiting = true
    },
    rest() {
      if (waiting) handle.unref()
      waiting = false
    },
    close: () => handle.close(),
  }
}

/** Waits in one thread of libuv's pool, where the descriptor cannot be watched. */
export function waitInThread(fd: number, ready: () => void): Waiter {
  const enter = libcFor('io_uring_enter').ioUringWait
  let waiting = false
  return {
    wait() {
      if (waiting) return
      waiting = true
      enter(fd, () => {
        waiting = false
        ready()
      })
    },
    rest() {},
    close() {},
  }
}
