import type { Reservation } from '../contract.ts'
import { SpillwayError } from '../errors.ts'

/** Counts space that was promised: `free` pages the backup has, less what is set aside for somebody. */
export class Reservations {
  readonly #backup: string
  readonly #pageSizeBytes: number
  readonly #freePages: () => number
  #reservedPages = 0

  constructor(backup: string, pageSizeBytes: number, freePages: () => number) {
    this.#backup = backup
    this.#pageSizeBytes = pageSizeBytes
    this.#freePages = freePages
  }

  /** Pages that anybody may take. */
  get commonPages(): number {
    return this.#freePages() - this.#reservedPages
  }

  /** Sets aside whole pages for `bytes`; throws `ENOSPC` when there are not that many. */
  reserve(bytes: number): Reservation {
    const pages = Math.ceil(bytes / this.#pageSizeBytes)
    if (pages > this.commonPages) {
      throw new SpillwayError(
        'ENOSPC',
        `cannot reserve ${bytes} bytes, ${this.commonPages * this.#pageSizeBytes} are left`,
        {
          backup: this.#backup,
        },
      )
    }
    this.#reservedPages += pages
    return new PageReservation(this, pages, this.#pageSizeBytes)
  }

  /** Checks that a reservation came from here; throws `TypeError` otherwise. */
  own(reservation: Reservation | undefined): PageReservation | undefined {
    if (reservation === undefined) return undefined
    if (this.isOwn(reservation)) return reservation
    throw new TypeError(`the reservation was not made by backup ${this.#backup}`)
  }

  /** Whether a reservation came from here. */
  isOwn(reservation: Reservation): reservation is PageReservation {
    return reservation instanceof PageReservation && reservation.owner === this
  }

  /** Pages a caller may take now: its own reserved ones first, then common ones. */
  allowance(reservation: PageReservation | undefined): number {
    return (reservation?.pages ?? 0) + this.commonPages
  }

  /** Counts `pages` as taken, from the reservation as far as it goes. Returns how many of them it had. */
  consume(reservation: PageReservation | undefined, pages: number): number {
    const taken = reservation?.take(pages) ?? 0
    this.#reservedPages -= taken
    return taken
  }

  /** Puts pages back that were consumed and not used after all; a reservation released meanwhile gets none. */
  restore(reservation: PageReservation | undefined, pages: number): void {
    if (reservation === undefined || reservation.released) return
    reservation.pages += pages
    this.#reservedPages += pages
  }
}

/** Pages set aside for one holder. */
export class PageReservation implements Reservation {
  readonly owner: Reservations
  pages: number
  released = false
  readonly #pageSizeBytes: number

  constructor(owner: Reservations, pages: number, pageSizeBytes: number) {
    this.owner = owner
    this.pages = pages
    this.#pageSizeBytes = pageSizeBytes
  }

  get bytes(): number {
    return this.pages * this.#pageSizeBytes
  }

  /** Takes up to `pages`; returns how many there were. */
  take(pages: number): number {
    const taken = Math.min(pages, this.pages)
    this.pages -= taken
    return taken
  }

  async release(): Promise<void> {
    this.released = true
    this.owner.consume(this, this.pages)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }
}
