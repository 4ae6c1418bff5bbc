import { abortError } from '@spillway/core'

/** The place of a segment that is being filled or sent, and its memory if it has needed any. */
export interface SegmentSlot {
  memory: Buffer | undefined
}

/**
 * Bounds the segments that are being filled or sent: a fixed number of slots. Memory is made when a slot first needs
 * some and then reused, so slots that have it go to those who need it. Who finds none free waits in line.
 */
export class SegmentSlots {
  readonly count: number
  readonly #bytes: number
  /** Those with memory at the end. */
  readonly #free: SegmentSlot[]
  readonly #waiting: ((slot: SegmentSlot) => void)[] = []

  /** @param bytes of a slot's memory */
  constructor(count: number, bytes: number) {
    this.count = count
    this.#bytes = bytes
    this.#free = Array.from({ length: count }, () => ({ memory: undefined }))
  }

  get inUse(): number {
    return this.count - this.#free.length
  }

  tryTake(): SegmentSlot | undefined {
    return this.#free.shift()
  }

  take(signal?: AbortSignal): Promise<SegmentSlot> {
    const slot = this.tryTake()
    if (slot !== undefined) return Promise.resolve(slot)
    return new Promise((resolve, reject) => {
      const take = (given: SegmentSlot) => {
        signal?.removeEventListener('abort', onAbort)
        resolve(given)
      }
      const onAbort = () => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1)
        reject(abortError(signal!))
      }
      if (signal?.aborted) return reject(abortError(signal))
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#waiting.push(take)
    })
  }

  give(slot: SegmentSlot): void {
    const next = this.#waiting.shift()
    if (next !== undefined) next(slot)
    else if (slot.memory === undefined) this.#free.unshift(slot)
    else this.#free.push(slot)
  }

  /** The slot's memory, made when it has none: its own, or that of a slot that is free. */
  memoryOf(slot: SegmentSlot): Buffer {
    const other =
      slot.memory === undefined ? this.#free.findLast(({ memory }) => memory !== undefined) : undefined
    if (other !== undefined) {
      slot.memory = other.memory
      other.memory = undefined
    }
    // Not of Node's shared slab: it is as large as a segment and lives as long as the backup.
    slot.memory ??= Buffer.allocUnsafeSlow(this.#bytes)
    return slot.memory
  }

  /** Lets go of the memory that is free. */
  trim(): void {
    for (const slot of this.#free) slot.memory = undefined
  }
}
