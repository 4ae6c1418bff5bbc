import { type HandleRun, pace, type Reservation, type SlotAllocator, SpillwayError } from '@spillway/core'
import type { SlotMemory } from './slot-memory.ts'
import { SlotSearch } from './slot-search.ts'

export interface CapacityOptions {
  /** Names the backup in errors. */
  readonly backup: string
  readonly pageSizeBytes: number
  readonly slots: SlotAllocator
  readonly memory: SlotMemory
  /** Slots that are put in use in one synchronous step. */
  readonly sliceSlots: number
}

/**
 * Hands out slots: from a reservation, else from what is free. A reservation holds slots that have their memory, so
 * that nothing can come between the promise and its use.
 */
export class Capacity {
  readonly #options: CapacityOptions
  #reservedSlots = 0

  constructor(options: CapacityOptions) {
    this.#options = options
  }

  get reservedBytes(): number {
    return this.#reservedSlots * this.#options.pageSizeBytes
  }

  /** Bytes that anybody may take. */
  get freeBytes(): number {
    return this.#options.slots.freeSlots * this.#options.pageSizeBytes
  }

  /** Sets slots aside and makes their memory, in slices. Rejects with `ENOSPC` and keeps nothing. */
  async reserve(bytes: number): Promise<ShmemReservation> {
    const { memory, pageSizeBytes, sliceSlots } = this.#options
    const reservation = new ShmemReservation(this, pageSizeBytes)
    const left = Math.min(this.freeBytes, memory.obtainableBytes)
    let missing = Math.ceil(bytes / pageSizeBytes)
    if (missing * pageSizeBytes > left) throw this.#full(`cannot reserve ${bytes} bytes, ${left} are left`)
    const search = this.search(missing)
    try {
      while (missing > 0) {
        const turn = pace(sliceSlots * pageSizeBytes)
        if (turn !== undefined) await turn
        const run = search.next(Math.min(missing, sliceSlots))
        if (run === undefined) throw this.#full(`cannot reserve ${bytes} bytes, others took the space`)
        if (!this.#claimReserved(run, search)) continue
        this.#reservedSlots += run.count
        reservation.put(run)
        missing -= run.count
      }
    } catch (failure) {
      this.release(reservation)
      throw failure
    }
    return reservation
  }

  /** Makes the memory of slots now. False when the system has none for them: then they are free again, and others are tried. */
  #claimReserved(run: HandleRun, search: SlotSearch): boolean {
    const { slots, memory } = this.#options
    try {
      memory.claim(slots.slotOf(run.first), run.count, true)
      return true
    } catch (failure) {
      slots.freeRun(run)
      if (!isFull(failure)) throw failure
      // Slots of the run may be warm, and then they are found again one run at a time.
      search.refused(slots.slotOf(run.first))
      return false
    }
  }

  /** Checks that a reservation came from here; throws `TypeError` otherwise. */
  own(reservation: Reservation | undefined): ShmemReservation | undefined {
    if (reservation === undefined) return undefined
    if (reservation instanceof ShmemReservation && reservation.capacity === this) return reservation
    throw new TypeError(`the reservation was not made by backup ${this.#options.backup}`)
  }

  /** How a call that wants so many slots looks for free ones. */
  search(wantedSlots: number): SlotSearch {
    return new SlotSearch(this.#options.slots, this.#options.memory, wantedSlots)
  }

  /** Takes up to `wantedSlots` adjacent slots; `undefined` when there are none. Reserved ones are in use already. */
  take(
    wantedSlots: number,
    reservation: ShmemReservation | undefined,
    search: SlotSearch,
  ): { run: HandleRun; isReserved: boolean } | undefined {
    const reserved = reservation?.take(wantedSlots)
    if (reserved !== undefined) {
      this.#reservedSlots -= reserved.count
      return { run: reserved, isReserved: true }
    }
    const run = search.next(wantedSlots)
    return run === undefined ? undefined : { run, isReserved: false }
  }

  /** Takes back what `take` gave and was not used. Of free slots none may be in use. */
  putBack(run: HandleRun, reservation: ShmemReservation | undefined): void {
    if (reservation === undefined) {
      this.#options.slots.freeRun(run)
      return
    }
    this.#reservedSlots += run.count
    reservation.put(run)
    if (reservation.isReleased) this.release(reservation)
  }

  release(reservation: ShmemReservation): void {
    const { slots, memory } = this.#options
    for (let run = reservation.take(Infinity); run !== undefined; run = reservation.take(Infinity)) {
      this.#reservedSlots -= run.count
      slots.freeRun(run)
      memory.release(slots.slotOf(run.first), run.count)
    }
  }

  #full(message: string): SpillwayError {
    return new SpillwayError('ENOSPC', message, { backup: this.#options.backup })
  }
}

/** Slots set aside for one holder. */
export class ShmemReservation implements Reservation {
  readonly capacity: Capacity
  readonly #pageSizeBytes: number
  readonly #runs: HandleRun[] = []
  #slots = 0
  #released = false

  constructor(capacity: Capacity, pageSizeBytes: number) {
    this.capacity = capacity
    this.#pageSizeBytes = pageSizeBytes
  }

  get bytes(): number {
    return this.#slots * this.#pageSizeBytes
  }

  get isReleased(): boolean {
    return this.#released
  }

  async release(): Promise<void> {
    this.#released = true
    this.capacity.release(this)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  /** Adds slots. */
  put(run: HandleRun): void {
    this.#runs.push(run)
    this.#slots += run.count
  }

  /** Removes up to `wantedSlots` adjacent slots; `undefined` when none are left. */
  take(wantedSlots: number): HandleRun | undefined {
    const run = this.#runs.pop()
    if (run === undefined) return undefined
    const count = Math.min(run.count, wantedSlots)
    if (count < run.count) this.#runs.push({ first: run.first + count, count: run.count - count })
    this.#slots -= count
    return { first: run.first, count }
  }
}

const fullCodes: ReadonlySet<unknown> = new Set(['ENOSPC', 'ENOMEM', 'EDQUOT'])

/** Whether a failure says that the system or the file system has no room now. */
export function isFull(failure: unknown): boolean {
  return fullCodes.has((failure as { code?: unknown } | null)?.code)
}
