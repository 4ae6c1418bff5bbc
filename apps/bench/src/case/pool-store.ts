import type { PagedBuffer, Pool } from '@spillway/pool'
import type { BufferStore, Touch, Visit } from './store.ts'

export interface PoolStoreOptions {
  readonly bufferCount: number
  readonly bufferBytes: number
  /** Highest order of the chunks that buffers are made of; without it the pool's own. */
  readonly maxOrder: number | undefined
  /** Whether nothing can be known of what is touched next. */
  readonly random?: boolean
}

/** The store that is measured: buffers of a Spillway pool, which backs them up and restores them as it must. */
export class PoolStore implements BufferStore {
  readonly buffers: readonly PagedBuffer[]
  readonly #pool: Pool

  private constructor(pool: Pool, buffers: readonly PagedBuffer[]) {
    this.#pool = pool
    this.buffers = buffers
  }

  static async open(pool: Pool, options: PoolStoreOptions): Promise<PoolStore> {
    const buffers: PagedBuffer[] = []
    for (let index = 0; index < options.bufferCount; index++) {
      const buffer = await pool.allocate(options.bufferBytes, {
        label: `bench ${index}`,
        ...(options.maxOrder === undefined ? {} : { maxOrder: options.maxOrder }),
      })
      if (options.random) buffer.advise('random')
      buffers.push(buffer)
    }
    return new PoolStore(pool, buffers)
  }

  write(buffer: number, offsetBytes: number, bytes: Uint8Array): Promise<void> {
    return this.buffers[buffer].write(offsetBytes, bytes)
  }

  async read(buffer: number, offsetBytes: number, into: Uint8Array): Promise<void> {
    await this.buffers[buffer].read(offsetBytes, into)
  }

  async touch({ buffer, offsetBytes, lengthBytes, write }: Touch, visit: Visit): Promise<void> {
    using pin = await this.buffers[buffer].pin({ offset: offsetBytes, length: lengthBytes, write })
    visit(pin.spans)
  }

  stats(): unknown {
    return this.#pool.stats()
  }

  /** Frees the buffers; the pool belongs to whoever made it. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const buffer of this.buffers) await buffer.free()
  }
}
