import { environmentValue } from '@spillway/core'

/**
 * Threads of libuv's pool, which also serves the application's own file system calls, DNS and crypto. All backups of the
 * process share two budgets:
 *
 *   long work        large requests, holes, allocation: half of the threads at most, so that one is always left
 *   short requests   up to 64 KiB: all threads, and a few that wait, since a thread is free again after a page's time on the
 *                    disk. What the application asks for waits behind eight of them at most.
 */
const libuvThreads = Number.parseInt(environmentValue('UV_THREADPOOL_SIZE') ?? '', 10) || 4

/** Requests of at most so many bytes are short. */
export const shortRequestBytes = 64 * 1024

/** Lets so many pieces of work begin at once, and others when one is over, in the order in which they came. */
class ThreadBudget {
  readonly most: number
  #inUse = 0
  #waiting: (() => void)[] = []
  #firstWaiting = 0

  constructor(most: number) {
    this.most = most
  }

  /** Runs `start` when there is room, at once or later; `leave` ends what it began. */
  enter(start: () => void): void {
    if (this.#inUse < this.most) {
      this.#inUse++
      start()
    } else {
      this.#waiting.push(start)
    }
  }

  leave(): void {
    if (this.#firstWaiting === this.#waiting.length) {
      this.#inUse--
      return
    }
    const next = this.#waiting[this.#firstWaiting++]
    if (this.#firstWaiting > 1024) {
      this.#waiting = this.#waiting.slice(this.#firstWaiting)
      this.#firstWaiting = 0
    }
    next()
  }
}

export const longWork = new ThreadBudget(Math.max(1, Math.floor(libuvThreads / 2)))
export const shortRequests = new ThreadBudget(8 * libuvThreads)

/** Runs long work that occupies a thread. */
export async function inThread<Result>(work: () => Promise<Result>): Promise<Result> {
  await new Promise<void>((resolve) => longWork.enter(resolve))
  try {
    return await work()
  } finally {
    longWork.leave()
  }
}
