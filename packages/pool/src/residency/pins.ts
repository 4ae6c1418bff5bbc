import { busy, listForOne, notReady, partial } from '../table/chunks.ts'
import type { BufferState } from './buffer-state.ts'
import { DamagedPages } from './damaged-pages.ts'
import { installMissing } from './installation.ts'
import { collect, Miss, type MissParts, type PinOptions, type PinWaiter } from './miss.ts'
import { PageIn } from './page-in.ts'
import type { WantedPages } from './placement.ts'
import type { ResidentSet } from './resident-set.ts'

/**
 * Pins ranges of buffers, so that they are resident until they are let go: what every access goes through (T86). What is
 * there is pinned at once; all else is a miss. Chunks that are pinned cannot be evicted, split or freed.
 */
export class Pins {
  readonly damage: DamagedPages
  readonly #parts: MissParts

  constructor(
    residents: ResidentSet,
    { makeRoom, storeFailure }: Pick<MissParts, 'makeRoom' | 'storeFailure'>,
  ) {
    this.damage = new DamagedPages(residents)
    this.#parts = { residents, pageIn: new PageIn(residents), damage: this.damage, makeRoom, storeFailure }
  }

  /** Pins a range when all of it is ready now; otherwise undefined, and nothing changed. */
  tryPin(buffer: BufferState, first: number, end: number, write: boolean): number[] | undefined {
    const { residents } = this.#parts
    const { chunks, order, operations } = residents
    const { table } = buffer
    // Nothing is made for a miss.
    if (first < end && table.chunkAt(first) === 0) return undefined
    const blocked = write ? busy | partial : notReady
    const pinned = listForOne()
    for (let page = first; page < end; ) {
      const chunk = table.chunkAt(page)
      if (chunk === 0) return undefined
      page = chunks.endPageUnless(chunk, blocked)
      if (page === 0 || (buffer.deviceMapped && !residents.mappings.isMapped(chunk))) return undefined
      pinned.push(chunk)
    }
    for (let index = 0; index < pinned.length; index++) {
      const chunk = pinned[index]!
      residents.pin(chunk)
      order.used(chunk)
      if (write) residents.markDirty(buffer, chunk)
    }
    operations.begin()
    return pinned
  }

  /**
   * Makes a range resident, pins it, and tells `waiter` of its chunks, possibly before it returns. The pins end with
   * `letGo`, or become the application's with `handOver`. Fails with `EINTR` when aborted, `ENOMEM` when
   * there is no room, or what the backup said; then nothing is pinned, and what was restored so far stays for the next call
   * (T43).
   */
  pinThen(buffer: BufferState, wanted: WantedPages, options: PinOptions, waiter: PinWaiter): void {
    new Miss(this.#parts, buffer, wanted, options).begin(waiter)
  }

  /** The same as a promise. */
  pin(buffer: BufferState, wanted: WantedPages, options: PinOptions): Promise<number[]> {
    return new Promise((resolve, reject) => {
      const delivered = (pinned: number[] | undefined, error: Error | undefined) => {
        if (pinned === undefined) reject(error)
        else resolve(pinned)
      }
      this.pinThen(buffer, wanted, options, { delivered })
    })
  }

  /**
   * Pins a range that nobody waits for: undefined when the memory cannot be had at once. `room` is asked to make some
   * without I/O, and says whether it is worth trying again. `marked` chunks count as read ahead until somebody comes.
   */
  pinAhead(
    buffer: BufferState,
    wanted: WantedPages,
    { room, marked }: AheadOptions,
  ): Promise<number[]> | undefined {
    const { residents } = this.#parts
    const { limit, chunks, order, operations } = residents
    const pinned: number[] = []
    const missing = collect(residents, buffer, wanted, pinned)
    const isCharged =
      limit.tryCharge(missing) || (limit.shared.waiters === 0 && room(missing) && limit.tryCharge(missing))
    if (!isCharged) {
      this.release(buffer, pinned)
      return undefined
    }
    operations.begin()
    this.release(buffer, pinned)
    // Chunks around pages beside it that left to make room would need more than was charged.
    const tight = collect(residents, buffer, wanted, pinned) > missing
    try {
      const options = { pinned, chargedPages: missing, retryMayFail: true }
      installMissing(residents, buffer, { ...wanted, tight }, options)
      if (marked) for (const chunk of pinned) if (chunks.has(chunk, partial)) order.readAhead(chunk)
      return this.pin(buffer, wanted, { write: false, retryMayFail: true, ahead: true })
    } catch {
      return undefined
    } finally {
      this.letGo(buffer, pinned)
    }
  }

  /** Ends what `pin` or `tryPin` began. */
  letGo(buffer: BufferState, pinned: number[]): void {
    this.release(buffer, pinned)
    this.#parts.residents.operations.end(pinned)
  }

  /** The operation ends, its chunks stay pinned: they are the application's now, until `release`. */
  handOver(pinned: number[]): void {
    this.#parts.residents.operations.end(pinned)
  }

  /** What an operation pinned with `tryPin` it keeps pinned while others run. */
  keep(pinned: number[]): void {
    this.#parts.residents.operations.keeps(pinned)
  }

  /** The same, to write to them. */
  keepWriting(pinned: number[]): void {
    this.#parts.residents.operations.keepsWriting(pinned)
  }

  /** Releases chunks that the application pinned. */
  release(buffer: BufferState, pinned: number[]): void {
    if (pinned.length === 0) return
    const { residents } = this.#parts
    for (let index = 0; index < pinned.length; index++) residents.unpin(pinned[index]!, buffer)
    pinned.length = 0
    residents.unpinned()
  }
}

interface AheadOptions {
  readonly room: (pages: number) => boolean
  readonly marked: boolean
}
