import type { CopyDone } from '../contract.ts'
import { staleHandleError } from '../errors.ts'
import type { PlacedPages } from './definition.ts'

/** `startCopy` of a definition. */
export type Start = (first: number, span: Uint8Array, done: CopyDone) => boolean

export interface StartedCopyParts {
  /** Names the backup in errors. */
  readonly backup: string
  readonly pageSizeBytes: number
  readonly pages: Pick<PlacedPages, 'firstNotLive'>
  readonly first: number
  readonly span: Uint8Array
}

/** A copy that a definition starts: told once, and only of pages that were live to the end. */
export class StartedCopy {
  readonly #parts: StartedCopyParts
  readonly #end: CopyDone
  #isOver = false

  /** `end` is told once of a copy that was begun, and never of another. */
  constructor(parts: StartedCopyParts, end: CopyDone) {
    this.#parts = parts
    this.#end = end
  }

  /** Whether it was begun. What throws was not, unless it was told before: then it is over. */
  begin(start: Start): boolean {
    const { first, span } = this.#parts
    let began = false
    try {
      began = start(first, span, (copied, error) => this.#ended(copied, error))
    } catch {
      // The caller goes on with copyPages, which says what is wrong.
    }
    if (began || this.#isOver) return true
    this.#isOver = true
    return false
  }

  #ended(copied: number, error: Error | undefined): void {
    if (this.#isOver) return
    this.#isOver = true
    const { backup, pages, pageSizeBytes, first, span } = this.#parts
    // A page that was dropped under way may be what stopped it.
    const looked = error === undefined ? copied : Math.min(copied + 1, span.byteLength / pageSizeBytes)
    const stale = looked > 0 ? pages.firstNotLive([{ first, count: looked }]) : undefined
    if (typeof stale !== 'number') {
      this.#end(copied, error)
      return
    }
    // What lies there may be the page of somebody else by now.
    const good = stale - first
    span.fill(0, good * pageSizeBytes)
    this.#end(good, staleHandleError(backup, stale))
  }
}
