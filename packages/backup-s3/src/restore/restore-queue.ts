import type { SegmentObject } from '../segments/segment-table.ts'
import type { RestorePart } from './restore-parts.ts'

/**
 * Parts that wait for a GET, by object; the object that has waited longest comes first. They hang on their object and
 * not in a map: one that is filled and emptied all the time is copied just as often, and what is left of the copies
 * keeps calls alive that are long over, until the next full collection.
 */
export class RestoreQueue {
  readonly #objects: SegmentObject[] = []

  add(part: RestorePart): void {
    const { object } = part
    if (object.waiting === undefined) {
      object.waiting = [part]
      this.#objects.push(object)
    } else object.waiting.push(part)
  }

  /** The object whose turn it is. */
  get first(): SegmentObject | undefined {
    return this.#objects[0]
  }

  has(part: RestorePart): boolean {
    return part.object.waiting?.includes(part) ?? false
  }

  remove(object: SegmentObject, parts: readonly RestorePart[]): void {
    const gone = new Set(parts)
    const rest = object.waiting?.filter((part) => !gone.has(part))
    if (rest === undefined) return
    object.waiting = rest.length === 0 ? undefined : rest
    if (rest.length > 0) return
    if (this.#objects[0] === object) this.#objects.shift()
    else this.#objects.splice(this.#objects.indexOf(object), 1)
  }
}
