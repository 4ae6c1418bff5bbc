import { abortError } from './errors.ts'

/** Memory for what is on its way, and how it goes back to the system. */
export interface StagingBuffer {
  readonly memory: Uint8Array
  close?(): void
}

/**
 * Buffers of one size in which pages wait while they are changed on their way. There are never more than `most`; whoever finds none
 * waits its turn.
 */
export class StagingBuffers {
  readonly bufferBytes: number
  readonly #most: number
  readonly #make: (bytes: number) => StagingBuffer
  readonly #idle: StagingBuffer[] = []
  readonly #waiting = new Set<(buffer: StagingBuffer) => void>()
  #made = 0

  /** `make` gives memory; without it, it is the garbage collector's. */
  constructor(most: number, bufferBytes: number, make?: (bytes: number) => StagingBuffer) {
    this.bufferBytes = bufferBytes
    this.#most = most
    this.#make = make ?? ((bytes) => ({ memory: new Uint8Array(bytes) }))
  }

  /** Most memory held so far. */
  get heldBytes(): number {
    return this.#made * this.bufferBytes
  }

  /** A buffer, where there is one at once. */
  takeNow(): StagingBuffer | undefined {
    const buffer = this.#idle.pop()
    if (buffer !== undefined || this.#made >= this.#most) return buffer
    const made = this.#make(this.bufferBytes)
    this.#made++
    return made
  }

  /** A buffer, to be given back. Rejects with `EINTR` when the signal is aborted while it waits. */
  take(signal?: AbortSignal): StagingBuffer | Promise<StagingBuffer> {
    return this.takeNow() ?? this.#wait(signal)
  }

  give(buffer: StagingBuffer): void {
    const [next] = this.#waiting
    if (next === undefined) {
      this.#idle.push(buffer)
      return
    }
    this.#waiting.delete(next)
    next(buffer)
  }

  /** Overwrites and gives back all memory; nothing may be out. */
  close(): void {
    for (const buffer of this.#idle) {
      buffer.memory.fill(0)
      buffer.close?.()
    }
    this.#idle.length = 0
    this.#made = 0
  }

  #wait(signal: AbortSignal | undefined): Promise<StagingBuffer> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#waiting.delete(got)
        reject(abortError(signal!))
      }
      const got = (buffer: StagingBuffer) => {
        signal?.removeEventListener('abort', abort)
        resolve(buffer)
      }
      this.#waiting.add(got)
      signal?.addEventListener('abort', abort, { once: true })
    })
  }
}
