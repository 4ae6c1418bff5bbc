import { isSpillwayError } from '@spillway/core'
import type { Advice, PagedBuffer, Pool } from '@spillway/pool'
import type { Random } from '../random.ts'
import { type ExpectedPages, pageSizeBytes } from './expected.ts'

/** What a soak has done and found so far. */
export interface SoakTally {
  operations: number
  verifiedBytes: number
  writtenBytes: number
  wrongBytes: number
  /** Calls that failed with a code that an injected fault, or a full backup, may cause; they were made again. */
  failedCalls: number
  /** How many of them with which code. */
  readonly failedCodes: Record<string, number>
  /** What should never happen. */
  readonly problems: string[]
}

export function emptyTally(): SoakTally {
  return {
    operations: 0,
    verifiedBytes: 0,
    writtenBytes: 0,
    wrongBytes: 0,
    failedCalls: 0,
    failedCodes: {},
    problems: [],
  }
}

/** A buffer and what it must hold. Only one operation at a time changes it; others on it may overlap. */
export interface SoakBuffer {
  buffer: PagedBuffer
  expected: ExpectedPages
}

/** Codes that calls may fail with while faults are injected. */
const faultCodes: ReadonlySet<string> = new Set([
  'EIO',
  'ENOSPC',
  'ENOMEM',
  'EAGAIN',
  'ETIMEDOUT',
  'EINTR',
  'EBUSY',
])
const mostAttempts = 2000
const longestPages = 64
/** How long a buffer is left to be purged, at most: long enough for others to want its memory. */
const longestPurgeableMs = 20
const advices: readonly Advice[] = ['normal', 'random', 'sequential', 'willneed', 'dontneed']

/** How often each operation is drawn. */
const weights = {
  read: 30,
  write: 20,
  pin: 20,
  backup: 8,
  restore: 8,
  overlap: 6,
  advise: 5,
  purge: 2,
  purgeable: 2,
  setLimit: 1,
  replace: 1,
} as const
export type SoakOperation = keyof typeof weights

export function drawOperation(random: Random): SoakOperation {
  const names = Object.keys(weights) as SoakOperation[]
  let left = random.below(names.reduce((sum, name) => sum + weights[name], 0))
  for (const name of names) {
    left -= weights[name]
    if (left < 0) return name
  }
  return 'read'
}

/** Does what may be done to a buffer again and again, and compares what comes back with what must be there. */
export class SoakOperations {
  readonly #pool: Pool
  readonly #limitBytes: number
  readonly #random: Random
  readonly #tally: SoakTally
  readonly #scratch = new Uint8Array((longestPages + 1) * pageSizeBytes)

  constructor(pool: Pool, random: Random, tally: SoakTally) {
    this.#pool = pool
    this.#limitBytes = pool.limitBytes
    this.#random = random
    this.#tally = tally
  }

  async run(operation: Exclude<SoakOperation, 'replace'>, target: SoakBuffer): Promise<void> {
    const { buffer, expected } = target
    const random = this.#random
    switch (operation) {
      case 'read':
        return this.read(target)
      case 'write':
        return this.#write(target)
      case 'pin':
        return this.#pin(target)
      case 'backup':
        await this.#partial(() =>
          buffer.backup({ writeback: random.below(4) === 0, atomic: random.below(4) === 0 }),
        )
        return
      case 'restore':
        await this.#partial(() => buffer.restore())
        return
      case 'overlap':
        // The buffer moves away and back while it is read.
        await Promise.all([
          this.#partial(() => (random.below(2) === 0 ? buffer.backup() : buffer.restore())),
          this.read(target),
        ])
        return
      case 'advise': {
        const [first, count] = this.#range(expected)
        buffer.advise(advices[random.below(advices.length)], {
          offset: first * pageSizeBytes,
          length: count * pageSizeBytes,
        })
        return
      }
      case 'purge':
        await this.#again(() => buffer.purge())
        expected.clear()
        return
      case 'purgeable':
        return this.#leaveToBePurged(target)
      case 'setLimit': {
        // Between half of the limit that it began with and all of it, while the others go on.
        const sunkBy = random.below(Math.floor(this.#limitBytes / 2 / pageSizeBytes)) * pageSizeBytes
        await this.#again(() => this.#pool.setLimit(this.#limitBytes - sunkBy))
      }
    }
  }

  async #write({ buffer, expected }: SoakBuffer): Promise<void> {
    const [first, count] = this.#range(expected)
    const memory = this.#scratch.subarray(0, count * pageSizeBytes)
    expected.rewrite(first, memory)
    this.#tally.writtenBytes += memory.byteLength
    // A call that failed has written a part: the same bytes again make it whole.
    await this.#again(() => buffer.write(first * pageSizeBytes, memory))
  }

  /** Lets reclaim take the content for a while, writing some of it meanwhile; then each page is whole or gone. */
  async #leaveToBePurged(target: SoakBuffer): Promise<void> {
    const { buffer, expected } = target
    const random = this.#random
    buffer.advise('purgeable')
    if (random.below(2) === 0) await this.#write(target)
    await new Promise((resolve) => setTimeout(resolve, random.below(longestPurgeableMs)))
    buffer.advise('normal')
    for (let page = 0; page < expected.pageCount; page += longestPages) {
      const count = Math.min(longestPages, expected.pageCount - page)
      const into = this.#scratch.subarray(0, count * pageSizeBytes)
      const done = await this.#again(() => buffer.read(page * pageSizeBytes, into))
      if (!done) return
      expected.forgetZeros(page, into)
      this.#check(expected, page * pageSizeBytes, into, buffer)
    }
  }

  /** Reads a range that begins and ends anywhere. */
  async read({ buffer, expected }: SoakBuffer): Promise<void> {
    const [first, count] = this.#range(expected)
    const skipped = this.#random.below(pageSizeBytes)
    const length = Math.max(1, count * pageSizeBytes - skipped - this.#random.below(pageSizeBytes - skipped))
    const into = this.#scratch.subarray(0, length)
    const offset = first * pageSizeBytes + skipped
    const done = await this.#again(() => buffer.read(offset, into))
    if (done) this.#check(expected, offset, into, buffer)
  }

  /** Reads all of it: nothing may be missing at the end. */
  async readAll({ buffer, expected }: SoakBuffer): Promise<void> {
    for (let page = 0; page < expected.pageCount; page += longestPages) {
      const count = Math.min(longestPages, expected.pageCount - page)
      const into = this.#scratch.subarray(0, count * pageSizeBytes)
      const done = await this.#again(() => buffer.read(page * pageSizeBytes, into))
      if (done) this.#check(expected, page * pageSizeBytes, into, buffer)
    }
  }

  async #pin({ buffer, expected }: SoakBuffer): Promise<void> {
    const [first, count] = this.#range(expected)
    const write = this.#random.below(3) === 0
    const offset = first * pageSizeBytes
    await this.#again(async () => {
      using pin = await buffer.pin({ offset, length: count * pageSizeBytes, write })
      let reached = offset
      for (const span of pin.spans) {
        this.#check(expected, reached, span, buffer)
        if (write) expected.rewrite(reached / pageSizeBytes, span)
        reached += span.byteLength
      }
      if (write) this.#tally.writtenBytes += count * pageSizeBytes
    })
  }

  #check(expected: ExpectedPages, offset: number, memory: Uint8Array, buffer: PagedBuffer): void {
    const wrong = expected.countWrong(offset, memory)
    this.#tally.verifiedBytes += memory.byteLength - wrong
    this.#tally.wrongBytes += wrong
    if (wrong > 0) this.problem(`buffer ${buffer.label}: ${wrong} wrong bytes from ${offset} on`)
  }

  #range(expected: ExpectedPages): [firstPage: number, pageCount: number] {
    const count = 1 + this.#random.below(Math.min(longestPages, expected.pageCount))
    return [this.#random.below(expected.pageCount - count + 1), count]
  }

  /** A call whose partial result is a value: what it did not do, another call may. */
  async #partial(call: () => Promise<{ readonly error?: Error | undefined }>): Promise<void> {
    try {
      const { error } = await call()
      // What was purged is reported once.
      if (error !== undefined && !(isSpillwayError(error) && error.code === 'ENOENT')) this.#judge(error)
    } catch (failure) {
      this.#judge(failure)
    }
  }

  /** Calls until it works; false when it never does, which is a problem. */
  async #again(call: () => Promise<unknown>): Promise<boolean> {
    for (let attempt = 1; attempt <= mostAttempts; attempt++) {
      try {
        await call()
        return true
      } catch (failure) {
        if (!this.#judge(failure)) return false
        await new Promise((resolve) => setTimeout(resolve, Math.min(attempt, 20)))
      }
    }
    this.problem(`a call failed ${mostAttempts} times`)
    return false
  }

  /** Whether a failure is one that faults may cause; any other is a problem. */
  #judge(failure: unknown): boolean {
    if (isSpillwayError(failure) && faultCodes.has(failure.code)) {
      this.#tally.failedCalls++
      const { failedCodes } = this.#tally
      failedCodes[failure.code] = (failedCodes[failure.code] ?? 0) + 1
      return true
    }
    this.problem(`unexpected: ${failure instanceof Error ? failure.stack : String(failure)}`)
    return false
  }

  problem(text: string): void {
    if (this.#tally.problems.length < 20) this.#tally.problems.push(text)
  }
}
