import { abortError } from '@spillway/core'

/**
 * The memory that segments are put together in: a fixed number of buffers, made when first needed and then reused.
 * Who finds none free waits in line.
 */
export class BufferPool {
  readonly count: number
  readonly #bytes: number
  readonly #free: Buffer[] = []
  readonly #waiting: ((buffer: Buffer) => void)[] = []
  #made = 0

  constructor(count: number, bytes: number) {
    this.count = count
    this.#bytes = bytes
  }

  get inUse(): number {
    return this.#made - this.#free.length
  }

  tryTake(): Buffer | undefined {
    const buffer = this.#free.pop()
    if (buffer !== undefined || this.#made === this.count) return buffer
    this.#made++
    // Not of Node's shared slab: it is as large as a segment and lives as long as the backup.
    return Buffer.allocUnsafeSlow(this.#bytes)
  }

  take(signal?: AbortSignal): Promise<Buffer> {
    const buffer = this.tryTake()
    if (buffer !== undefined) return Promise.resolve(buffer)
    return new Promise((resolve, reject) => {
      const take = (given: Buffer) => {
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

  give(buffer: Buffer): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free.push(buffer)
    else next(buffer)
  }

  /** Lets go of the memory that is free. */
  trim(): void {
    this.#made -= this.#free.length
    this.#free.length = 0
  }
}
