import { SpillwayError } from '@spillway/core'
import { pace } from '../pace.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import type { Destination, Residents } from '../residency/residents.ts'
import { busy, fixed } from '../table/chunks.ts'
import { pinnedError } from './call-progress.ts'

/** Giving up what buffers hold, in memory and in backups, in any state they may be in (T36, T49). */
export class Discards {
  readonly #residents: Residents

  constructor(residents: Residents) {
    this.#residents = residents
  }

  /**
   * Gives up the content of a buffer without storing it (T36). Rejects with `EBUSY` when somebody pins it meanwhile; what
   * was given up by then stays so. Resolves to the pages given up.
   */
  async purge(buffer: BufferState): Promise<number> {
    const { counters } = this.#residents
    const purged = { pages: 0 }
    try {
      await this.giveUp(buffer, 'system', purged)
    } finally {
      if (purged.pages > 0) buffer.purged = true
      counters.purgedPages += purged.pages
    }
    return purged.pages
  }

  /** Gives up the content of a buffer; memory goes to `destination`, the pages are counted in `progress`. */
  async giveUp(buffer: BufferState, destination: Destination, progress = { pages: 0 }): Promise<void> {
    const { chunks } = this.#residents
    const { table } = buffer
    for (let page = 0; page < table.pageCount; ) {
      table.look(page, table.pageCount)
      const count = table.foundPages
      if (table.found === 'chunk') {
        const chunk = table.foundChunk
        if ((chunks.flags[chunk]! & busy) !== 0 || chunks.pins[chunk]! > 0) {
          if (buffer.userPins > 0) throw pinnedError(buffer, page)
          // What holds it is an operation, and it ends.
          await this.#whenFree(chunk)
          continue
        }
        this.#residents.discard(chunk, destination)
        progress.pages += count
      } else if (table.found === 'handle') {
        buffer.store!.drop(table.foundHandle, count)
        table.setEmpty(page, count)
        progress.pages += count
      }
      page += count
      const turn = pace()
      if (turn !== undefined) await turn
    }
  }

  async #whenFree(chunk: number): Promise<void> {
    const { chunks } = this.#residents
    if ((chunks.flags[chunk]! & busy) !== 0) await chunks.whenSettled(chunk)
    else await new Promise<void>((resolve) => setTimeout(resolve, 0))
  }
}

/** Throws `EBUSY` when a page is in memory that it may not leave (T34). */
export function assertMayLeave(residents: Residents, buffer: BufferState): void {
  const page = residents.findPage(buffer, (chunk) => (residents.chunks.flags[chunk]! & fixed) !== 0)
  if (page === undefined) return
  throw new SpillwayError('EBUSY', `the page provider of buffer ${buffer.label} does not let pages leave`, {
    buffer: buffer.label,
    page,
  })
}
