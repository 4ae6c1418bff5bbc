import type { Reservation } from '@spillway/core'
import type { Tier } from './tier.ts'

/** Space set aside in one tier, or in several. */
export class SplitReservation implements Reservation {
  readonly parts: ReadonlyMap<Tier, Reservation>

  constructor(parts: ReadonlyMap<Tier, Reservation>) {
    this.parts = parts
  }

  get bytes(): number {
    let bytes = 0
    for (const part of this.parts.values()) bytes += part.bytes
    return bytes
  }

  /** Gives back each part, also when one is refused; then it throws why. */
  async release(): Promise<void> {
    const ends = await Promise.allSettled([...this.parts.values()].map((part) => part.release()))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }
}
