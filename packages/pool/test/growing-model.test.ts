import { faultyBackup, isSpillwayError, memoryBackup } from '@spillway/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type GrowableBuffer, type Pin, Pool } from '../src/index.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'

const maxPages = 96
const maxBytes = maxPages * page - 100

/** One call, or several that are made before the first is awaited. Places are parts of the length that the buffer has then. */
type Step =
  | { readonly kind: 'append'; readonly bytes: number; readonly form: number; readonly abortAfter: number }
  | { readonly kind: 'appends'; readonly lengths: readonly number[]; readonly truncateTo: number }
  | { readonly kind: 'truncate' | 'read'; readonly at: number }
  | { readonly kind: 'write' | 'purge'; readonly at: number; readonly bytes: number }
  | { readonly kind: 'pin'; readonly at: number; readonly bytes: number; readonly write: boolean }
  | { readonly kind: 'release' | 'backup' | 'restore' | 'fail' | 'heal' | 'free' }

const part = fc.double({ min: 0, max: 1, noNaN: true })
const size = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 30 * page }))
const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('append' as const),
      bytes: size,
      form: fc.nat(3),
      abortAfter: fc.oneof(fc.constant(-1), fc.nat(200)),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('appends' as const),
      lengths: fc.array(size, { minLength: 2, maxLength: 5 }),
      truncateTo: part,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constantFrom('truncate' as const, 'read' as const), at: part }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('write' as const, 'purge' as const),
      at: part,
      bytes: size,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('pin' as const),
      at: part,
      bytes: fc.nat(4 * page),
      write: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'release' as const,
        'backup' as const,
        'restore' as const,
        'fail' as const,
        'heal' as const,
        'free' as const,
      ),
    }),
  },
)

/** A buffer that grows, and beside it the plain array of bytes that tells what it has to be. */
class Subject {
  readonly backup = faultyBackup(memoryBackup({ capacityBytes: 2 * maxPages * page }))
  readonly pool: Pool
  buffer!: GrowableBuffer
  content = new Uint8Array(0)
  pins: Pin[] = []
  #seed = 1

  constructor(maxOrder: number) {
    const limitBytes = 24 * page
    this.pool = new Pool({
      limitBytes,
      maxOrder,
      provider: 'resizable',
      backup: this.backup,
      whenFull: 'fail',
    })
  }

  async make(): Promise<void> {
    this.buffer = await this.pool.allocate(0, { growable: true, maxBytes })
    this.content = new Uint8Array(0)
  }

  /** Does a step and what it has to do to the array, or nothing when it fails for a reason that it may have. */
  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'append':
        return this.#append(step.bytes, step.form, step.abortAfter)
      case 'appends':
        return this.#appends(step.lengths, step.truncateTo)
      case 'truncate':
        return this.#truncate(Math.floor(step.at * this.content.byteLength))
      case 'read':
        return this.#read(Math.floor(step.at * this.content.byteLength))
      case 'write':
        return this.#write(step.at, step.bytes)
      case 'purge':
        return this.#purge(step.at)
      case 'pin':
        return this.#pin(step.at, step.bytes, step.write)
      case 'backup':
        await this.#attempt(() => this.buffer.backup())
        return
      case 'restore':
        await this.#attempt(() => this.buffer.restore())
        return
      case 'fail':
        this.backup.inject({ method: 'backupPages', code: 'EIO', stop: 'half', every: 2 })
        return
      case 'heal':
        this.backup.heal()
        return
      case 'release':
        this.#releaseAll()
        return
      case 'free':
        this.#releaseAll()
        await this.buffer.free()
        await this.make()
    }
  }

  async end(): Promise<void> {
    this.#releaseAll()
    this.backup.heal()
    // The pool leaves a backup that failed alone for a moment.
    for (let offset = 0; offset < this.content.byteLength; ) {
      if (await this.#attempt(() => this.buffer.backup())) offset = this.content.byteLength
      else await new Promise((resolve) => setTimeout(resolve, 5))
    }
    const found = new Uint8Array(this.buffer.lengthBytes)
    await this.buffer.read(0, found)
    expect(firstDifference(found, this.content)).toBe(-1)
    await this.buffer.free()
    expect(this.pool.verify()).toEqual([])
    expect(this.backup.stats().livePages).toBe(0)
    await this.pool.close()
    expect(this.pool.stats().residentBytes).toBe(0)
  }

  check(): void {
    expect(this.buffer.lengthBytes).toBe(this.content.byteLength)
    expect(this.pool.verify()).toEqual([])
    for (const pin of this.pins) {
      const place = this.content.subarray(pin.offsetBytes, pin.offsetBytes + pin.length)
      expect(firstDifference(Buffer.concat([...pin.spans]), place)).toBe(-1)
    }
  }

  /** Whether a call did what it is for. A failure is one of memory that is pinned, or of the backup. */
  async #attempt(call: () => Promise<unknown>, ...more: string[]): Promise<boolean> {
    try {
      await call()
      return true
    } catch (failure) {
      if (!isSpillwayError(failure)) throw failure
      expect(['ENOMEM', 'EBUSY', 'EIO', ...more]).toContain(failure.code)
      return false
    }
  }

  async #append(length: number, form: number, abortAfter: number): Promise<void> {
    const bytes = pattern(length, ++this.#seed)
    const before = this.content.byteLength
    const controller = new AbortController()
    let isSettled = false
    let offset = -1
    const append = async () => {
      const source = sourceOf(bytes as Uint8Array<ArrayBuffer>, form)
      offset = await this.buffer.append(source, { signal: controller.signal, retryMayFail: true })
    }
    const call = this.#attempt(append, 'EFBIG', 'EINTR').finally(() => {
      isSettled = true
    })
    for (let tick = 0; tick < abortAfter && !isSettled; tick++) await null
    if (abortAfter >= 0) controller.abort()
    const isDone = await call
    if (before + length > maxBytes) expect(isDone).toBe(false)
    if (!isDone) return
    expect(offset).toBe(before)
    this.content = Buffer.concat([this.content, bytes])
  }

  async #appends(lengths: readonly number[], truncateTo: number): Promise<void> {
    const steps: (Uint8Array | number)[] = lengths.map((length) => pattern(length, ++this.#seed))
    steps.splice(1, 0, Math.floor(truncateTo * this.content.byteLength))
    const calls = steps.map((step): Promise<unknown> => {
      if (typeof step === 'number') return this.buffer.truncate(step)
      return this.buffer.append(step, { retryMayFail: true })
    })
    const outcomes = await Promise.allSettled(calls)
    for (const [index, step] of steps.entries()) {
      const outcome = outcomes[index]!
      if (outcome.status === 'rejected') {
        expect(['ENOMEM', 'EBUSY', 'EIO', 'EFBIG']).toContain((outcome.reason as { code?: string }).code)
      } else if (typeof step === 'number') {
        this.content = this.content.slice(0, step)
      } else {
        expect(outcome.value).toBe(this.content.byteLength)
        this.content = Buffer.concat([this.content, step])
      }
    }
  }

  async #truncate(length: number): Promise<void> {
    const isPinned = this.pins.some((pin) => pin.length > 0 && pin.offsetBytes + pin.length > length)
    const isDone = await this.#attempt(() => this.buffer.truncate(length))
    expect(isDone).toBe(!isPinned)
    if (isDone) this.content = this.content.slice(0, length)
  }

  async #read(offset: number): Promise<void> {
    const found = new Uint8Array(Math.min(20 * page, this.content.byteLength - offset))
    if (await this.#attempt(() => this.buffer.read(offset, found)))
      expect(firstDifference(found, this.content.subarray(offset, offset + found.byteLength))).toBe(-1)
    const beyond = this.buffer.read(this.content.byteLength, new Uint8Array(1))
    await expect(beyond).rejects.toThrow(RangeError)
  }

  /** Within what fits at once: a longer one that fails has written a part. */
  async #write(at: number, most: number): Promise<void> {
    const offset = Math.floor(at * this.content.byteLength)
    const length = Math.min(most, page, this.content.byteLength - offset)
    const bytes = pattern(length, ++this.#seed)
    if (await this.#attempt(() => this.buffer.write(offset, bytes))) this.content.set(bytes, offset)
  }

  async #purge(at: number): Promise<void> {
    const offset = Math.floor((at * this.content.byteLength) / page) * page
    if (this.pins.length > 0) return
    if (await this.#attempt(() => this.buffer.purge({ offset }))) this.content.fill(0, offset)
  }

  async #pin(at: number, most: number, write: boolean): Promise<void> {
    const offset = Math.floor(at * this.content.byteLength)
    const length = Math.min(most, this.content.byteLength - offset)
    await this.#attempt(async () => {
      const pin = await this.buffer.pin({ offset, length, write })
      this.pins.push(pin)
      if (!write) return
      let done = offset
      for (const span of pin.spans) {
        span.fill(++this.#seed)
        this.content.set(span, done)
        done += span.byteLength
      }
    })
  }

  #releaseAll(): void {
    for (const pin of this.pins.splice(0)) pin.release()
  }
}

function sourceOf(bytes: Uint8Array<ArrayBuffer>, form: number) {
  if (form === 0) return bytes
  const middle = Math.floor(bytes.byteLength / 3)
  const pieces = [bytes.subarray(0, middle), bytes.subarray(middle)]
  if (form === 1) return pieces
  return form === 2 ? new Blob([bytes]) : new Blob(pieces).stream()
}

describe('the model of a buffer that grows', () => {
  it.each([0, 3])('no history loses a byte, a page or its length; maxOrder %i', async (maxOrder) => {
    const warnings = process.listeners('warning')
    // A backup that fails is part of the game.
    process.removeAllListeners('warning')
    try {
      const histories = fc.array(steps, { minLength: 1, maxLength: 40 })
      const property = fc.asyncProperty(histories, async (history) => {
        const subject = new Subject(maxOrder)
        await subject.make()
        for (const step of history) {
          await subject.take(step)
          subject.check()
        }
        await subject.end()
      })
      await fc.assert(property, { numRuns: Number(process.env['SPILLWAY_RUNS'] ?? 60) })
    } finally {
      for (const listener of warnings) process.on('warning', listener)
    }
  })
})
