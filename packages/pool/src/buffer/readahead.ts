import type { BufferState } from '../residency/buffer-state.ts'
import type { Holder } from '../residency/hold.ts'
import type { Reclaim } from '../residency/reclaim.ts'
import type { Residents } from '../residency/residents.ts'
import type { Access } from './access.ts'

/**
 * Restores what a sequential reader will want next, while it still uses what it has.
 *
 * It never waits for memory, because a claim in the queue would hold up claims that somebody needs: it takes what is free
 * or can be taken from clean chunks, and else does nothing.
 */
export class Readahead {
  readonly #residents: Residents
  readonly #holder: Holder
  readonly #access: Access
  readonly #reclaim: Reclaim
  readonly #pageSizeBytes: number

  constructor(residents: Residents, holder: Holder, access: Access, reclaim: Reclaim, pageSizeBytes: number) {
    this.#residents = residents
    this.#holder = holder
    this.#access = access
    this.#reclaim = reclaim
    this.#pageSizeBytes = pageSizeBytes
  }

  /** Notes an access; the second that begins where the last one ended makes the reader sequential. */
  note(buffer: BufferState, offsetBytes: number, length: number): void {
    const goesOn = offsetBytes === buffer.nextOffset
    buffer.nextOffset = offsetBytes + length
    if (!goesOn && !buffer.sequential) {
      buffer.streak = 0
      return
    }
    if (++buffer.streak < streakLength && !buffer.sequential) return
    if (buffer.random || buffer.readahead || buffer.table.storedPages === 0) return
    const page = Math.ceil(buffer.nextOffset / this.#pageSizeBytes)
    if (page >= buffer.table.pageCount) return
    // Stay at most one window ahead: begin when the reader enters the last block that is there.
    const next = buffer.table.blockEnd(Math.max(0, page - 1))
    if (next >= buffer.table.pageCount) return
    buffer.table.look(next, next + 1)
    if (buffer.table.found === 'handle') this.start(buffer, next, this.#windowEnd(buffer, next))
  }

  /** Restores a range in the background if memory can be had at once; at most one such call for each buffer. */
  start(buffer: BufferState, from: number, to: number): void {
    if (buffer.readahead || buffer.closing) return
    const first = this.#firstStored(buffer, from, to)
    const most = Math.floor(this.#residents.limit.limitPages / 2)
    const end = this.#access.nonEmptyEnd(buffer, first, Math.min(to, first + most))
    if (first >= end) return
    const room = (pages: number) =>
      this.#reclaim.freeWithoutStoring(pages - this.#residents.limit.availablePages, 'reuse') > 0
    const holding = this.#holder.holdAhead(buffer, first, end, room)
    if (holding === undefined) return
    buffer.readahead = true
    buffer.operations++
    this.#residents.counters.readaheads++
    void holding
      .then((held) => this.#holder.letGo(buffer, held))
      // Nobody asked for it, so nobody is told; the access that needs the pages will meet the failure itself.
      .catch(() => {})
      .then(() => {
        buffer.readahead = false
        if (--buffer.operations === 0) buffer.idle?.resolve()
      })
  }

  #firstStored(buffer: BufferState, from: number, to: number): number {
    const { table } = buffer
    for (let page = from; page < to; page += table.foundPages) {
      table.look(page, to)
      if (table.found === 'handle') return page
    }
    return to
  }

  #windowEnd(buffer: BufferState, page: number): number {
    const { table } = buffer
    const most = Math.floor(this.#residents.limit.limitPages / 8)
    const blocks = Math.max(1, Math.floor(most / table.blockPages))
    return Math.min(this.#access.windowEnd(buffer, page), page + blocks * table.blockPages, table.pageCount)
  }
}

const streakLength = 2
