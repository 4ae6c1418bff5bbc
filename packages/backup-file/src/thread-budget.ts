import { environmentValue } from '@spillway/core'

/**
 * Threads of libuv's pool that this package may occupy. The pool also serves the application's own file system calls,
 * DNS and crypto, so all backups of the process together take half of it at most.
 */
const libuvThreads = Number.parseInt(environmentValue('UV_THREADPOOL_SIZE') ?? '', 10) || 4

export const threadsToUse = Math.max(1, Math.floor(libuvThreads / 2))

let threadsInUse = 0
const waiting: (() => void)[] = []
let firstWaiting = 0

/** Runs `start` when a thread may be taken, at once or later; give it back with `threadIsFree`. */
export function whenThreadIsFree(start: () => void): void {
  if (threadsInUse < threadsToUse) {
    threadsInUse++
    start()
  } else {
    waiting.push(start)
  }
}

export function threadIsFree(): void {
  if (firstWaiting === waiting.length) {
    threadsInUse--
    return
  }
  const next = waiting[firstWaiting++]
  if (firstWaiting > 1024) {
    waiting.splice(0, firstWaiting)
    firstWaiting = 0
  }
  next()
}

/** Runs work that occupies a thread. */
export async function inThread<Result>(work: () => Promise<Result>): Promise<Result> {
  await new Promise<void>((resolve) => whenThreadIsFree(resolve))
  try {
    return await work()
  } finally {
    threadIsFree()
  }
}
