import { delay, nowMs } from '@spillway/core'
import { dirtyList, purgeableList } from '../table/chunks.ts'
import type { PoolLimit } from './pool-limit.ts'
import type { Reclaim } from './reclaim.ts'
import type { ResidentSet } from './resident-set.ts'

/**
 * Writes cold dirty chunks back before anybody waits for their memory, and leaves them there, clean (T74, T75):
 *
 *   free + clean + purgeable pages
 *     below the low mark ─▶ one batch after the other, coldest first ─▶ up to the high mark
 *
 * So a claim mostly finds memory that can be taken without I/O. One call is in flight at a time, none while claims wait
 * (direct reclaim is at it then), none for a backup that fails, and few while the pool is thrashing: then the backup's time
 * belongs to restores.
 */
export class Background {
  readonly #residents: ResidentSet
  readonly #limit: PoolLimit
  readonly #reclaim: Reclaim
  readonly enabled: boolean
  #running: Promise<void> | undefined
  #stopped = false
  #restUntilMs = 0

  constructor(residents: ResidentSet, limit: PoolLimit, reclaim: Reclaim, enabled: boolean) {
    this.#residents = residents
    this.#limit = limit
    this.#reclaim = reclaim
    this.enabled = enabled
  }

  /** Pages that can be had without I/O. */
  get readyPages(): number {
    const { chunks, order } = this.#residents
    return this.#limit.availablePages + order.coldCleanPages + chunks.listPages[purgeableList]!
  }

  get lowPages(): number {
    return this.#limit.sharePages / 32
  }

  get highPages(): number {
    return this.#limit.sharePages / 16
  }

  /** Starts if there is too little; cheap enough to be asked after every claim. */
  wake(): void {
    this.#residents.pages.trimSoon()
    if (!this.enabled || this.#stopped || this.#running !== undefined) return
    if (this.readyPages >= this.lowPages || this.#residents.chunks.listPages[dirtyList] === 0) return
    if (nowMs() < this.#restUntilMs) return
    const { order } = this.#residents
    order.pickCold(order.coldCleanPages + this.highPages - this.readyPages)
    if (order.coldDirtyPages === 0) return
    this.#running = this.#run().finally(() => {
      this.#running = undefined
    })
  }

  /** Resolves when it is not running. */
  async settled(): Promise<void> {
    await this.#running
  }

  stop(): void {
    this.#stopped = true
  }

  async #run(): Promise<void> {
    // Whoever made memory scarce goes first.
    await delay(0)
    while (!this.#stopped && this.readyPages < this.highPages && this.#limit.shared.waiters === 0) {
      if (this.#residents.refaults.thrashing) await delay(thrashingPauseMs)
      const before = this.readyPages
      await this.#reclaim.clean(Math.ceil(this.highPages - before))
      if (this.readyPages > before) continue
      // Nothing came of it, and nothing would of the next attempt: the backup is full, or others were faster.
      this.#restUntilMs = nowMs() + restMs
      return
    }
  }
}

const thrashingPauseMs = 50
const restMs = 50
