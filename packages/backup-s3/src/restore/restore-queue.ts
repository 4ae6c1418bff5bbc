import type { SegmentObject } from '../segments/segment-table.ts'
import type { RestorePart } from './restore-parts.ts'

/** The parts that wait to be read from an object. */
interface WaitingParts {
  readonly parts: RestorePart[]
  /** How many of them do not wait any more. */
  gone: number
  isSorted: boolean
}

/**
 * Parts that wait for a GET, by object; the object that has waited longest comes first. They hang on their object and
 * not in a map: one that is filled and emptied all the time is copied just as often, and what is left of the copies
 * keeps calls alive that are long over, until the next full collection.
 *
 * A part that is taken back is only marked, and left out when its object's turn comes or when half of the list is marked:
 * so taking back costs the same however many wait.
 */
export class RestoreQueue {
  readonly #objects: SegmentObject[] = []

  add(part: RestorePart): void {
    const { object } = part
    part.isWaiting = true
    const waiting = waitingOf(object)
    if (waiting === undefined) {
      const alone: WaitingParts = { parts: [part], gone: 0, isSorted: true }
      object.waiting = alone
      this.#objects.push(object)
      return
    }
    const { parts } = waiting
    if (parts.length > 0 && parts[parts.length - 1].slot > part.slot) waiting.isSorted = false
    parts.push(part)
  }

  /** The object whose turn it is. */
  get first(): SegmentObject | undefined {
    while (this.#objects.length > 0 && this.#objects[0].waiting === undefined) this.#objects.shift()
    return this.#objects[0]
  }

  /** The parts of an object by slot; those that do not wait any more are among them. */
  partsOf(object: SegmentObject): readonly RestorePart[] {
    const waiting = waitingOf(object)
    if (waiting === undefined) return []
    if (!waiting.isSorted) {
      this.#compact(object)
      waiting.parts.sort((left, right) => left.slot - right.slot)
      waiting.isSorted = true
    }
    return waiting.parts
  }

  remove(part: RestorePart): void {
    const waiting = waitingOf(part.object)
    if (!part.isWaiting || waiting === undefined) return
    part.isWaiting = false
    waiting.gone++
    if (waiting.gone === waiting.parts.length) {
      part.object.waiting = undefined
      return
    }
    if (waiting.gone * 2 >= waiting.parts.length) this.#compact(part.object)
  }

  #compact(object: SegmentObject): void {
    const waiting = waitingOf(object)!
    const { parts } = waiting
    let kept = 0
    for (let index = 0; index < parts.length; index++)
      if (parts[index].isWaiting) parts[kept++] = parts[index]
    parts.length = kept
    waiting.gone = 0
  }
}

/** Only this file knows what hangs on an object. */
function waitingOf(object: SegmentObject): WaitingParts | undefined {
  return object.waiting as WaitingParts | undefined
}
