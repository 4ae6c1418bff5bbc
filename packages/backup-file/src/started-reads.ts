import { type CopyDone, mayWork, onTurn, systemError } from '@spillway/core'
import type { MoverParts } from './mover-parts.ts'
import type { PageMover } from './page-mover.ts'
import type { Piece } from './piece-plan.ts'

/** Pages that are adjacent in the file, on their way to memory that the engine takes as it is. */
export interface StartedRead {
  /** Handle of the first page; those of the others follow it. */
  readonly handle: number
  readonly pageCount: number
  readonly memory: Uint8Array
  /** Whom `ended` tells. */
  readonly done: CopyDone
  /** Called once, never before `start` has returned true unless the engine answers at once. */
  readonly ended: (read: StartedRead, pages: number, error?: Error) => void
}

/**
 * Reads without a promise. Only what goes wrong takes the way of other reads, from where it is:
 *
 *   start ─▶ request ─▶ all of it arrived, sums match, handles still live ─▶ done
 *                        └─ else ─▶ mover: goes on, reads again, finds what is bad ─▶ done
 */
export class StartedReads {
  readonly #parts: MoverParts
  readonly #mover: PageMover

  constructor(parts: MoverParts, mover: PageMover) {
    this.#parts = parts
    this.#mover = mover
  }

  /** False: the engine does not take this memory, or no request of this size; nothing was begun. */
  start(read: StartedRead): boolean {
    const { engine, dataOffsetBytes, pageSizeBytes, slotOf } = this.#parts
    if (!engine.takes(read.memory)) return false
    const offset = dataOffsetBytes + slotOf(read.handle) * pageSizeBytes
    if (!engine.readThen(read.memory, offset, (outcome) => this.#arrived(read, outcome))) return false
    this.#mover.directBytes += read.memory.byteLength
    return true
  }

  #arrived(read: StartedRead, outcome: number | Error): void {
    const { byteLength } = read.memory
    if (this.#parts.checksums === undefined || mayWork(byteLength)) this.#check(read, outcome)
    else this.#checkOnTurn(read, outcome)
  }

  /** Apart, so that nothing is made for a check that may be made at once. */
  #checkOnTurn(read: StartedRead, outcome: number | Error): void {
    onTurn(read.memory.byteLength, () => this.#check(read, outcome))
  }

  #check(read: StartedRead, outcome: number | Error): void {
    const { handle, pageCount, memory } = read
    const isWhole = outcome === memory.byteLength && this.#parts.isLive(handle, pageCount)
    if (isWhole && this.#matches(read)) read.ended(read, pageCount)
    else void this.#goOn(read, outcome)
  }

  #matches({ handle, pageCount, memory }: StartedRead): boolean {
    const { checksums, slotOf, pageSizeBytes } = this.#parts
    if (checksums === undefined) return true
    try {
      return (
        checksums.firstMismatch(handle, slotOf(handle), memory, pageSizeBytes, 0, pageCount) === pageCount
      )
    } catch {
      // The memory was detached: the mover says so.
      return false
    }
  }

  async #goOn(read: StartedRead, outcome: number | Error): Promise<void> {
    const { handle, pageCount, memory } = read
    const piece: Piece = { page: 0, pageCount, handle, parts: [memory], staged: false }
    try {
      const { pages, error } = await this.#mover.goOn(piece, outcome)
      read.ended(read, pages, error)
    } catch (thrown) {
      read.ended(
        read,
        0,
        systemError(thrown, 'pages could not be read', { backup: this.#parts.name, page: 0 }),
      )
    }
  }
}
