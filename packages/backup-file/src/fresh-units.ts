import type { BitSet } from '@spillway/core'

/** Adjacent slots that are to be used. */
export interface WantedSlots {
  readonly firstSlot: number
  readonly count: number
  /** Slots that get their space at once, as one piece of the file. */
  readonly unitSlots: number
  /** Slots that have space which can be used again; `undefined` where every write takes new space. */
  readonly backed: BitSet | undefined
}

/** How many slots, from the first on, can be used with `most` further pieces of the file, and how many pieces that takes. */
export function freshUnits(
  { firstSlot, count, unitSlots, backed }: WantedSlots,
  most: number,
): { slots: number; units: number } {
  if (most === Number.POSITIVE_INFINITY && unitSlots === 1) {
    return { slots: count, units: count - (backed?.countIn(firstSlot, count) ?? 0) }
  }
  const end = firstSlot + count
  let units = 0
  let slot = firstSlot
  while (slot < end) {
    const unit = Math.floor(slot / unitSlots) * unitSlots
    const isFresh = backed === undefined || backed.countIn(unit, unitSlots) === 0
    if (isFresh && ++units > most) break
    slot = Math.min(end, unit + unitSlots)
  }
  return { slots: slot - firstSlot, units }
}
