import type { ChunkReader } from '../table/chunks.ts'

/**
 * The calls that pin chunks, or are about to, and let go by themselves: waiting for them makes sense, for pins of the
 * application it may not. Copies on their way in are such calls, too, whoever waits for them.
 *
 *   begin ─▶ under way ─▶ end
 *              │   ▲
 *            waits goesOn      a claim in the queue is not under way: it waits itself
 *
 * The one claim that waits for memory and keeps what is resident of its range pinned can be told to let go of that; it looks
 * again when it is served.
 */
export class Operations {
  /** Operations that are under way. */
  count = 0
  readonly #chunks: ChunkReader
  readonly #onIdle: () => void
  readonly #pinned = new Set<readonly number[]>()
  /** Those of them whose memory is being changed. */
  readonly #writing = new Set<readonly number[]>()
  readonly #letGo = new Map<readonly number[], () => void>()

  /** `onIdle` is told when the last of them ended. */
  constructor(chunks: ChunkReader, onIdle: () => void) {
    this.#chunks = chunks
    this.#onIdle = onIdle
  }

  /** An operation is under way, and lets go in the same step of what it pins, unless it says what that is. */
  begin(): void {
    this.count++
  }

  /** An operation keeps these chunks pinned, and those that are added, while others run. */
  keeps(pinned: readonly number[]): void {
    this.#pinned.add(pinned)
  }

  /** The same for one that changes their memory in several steps. */
  keepsWriting(pinned: readonly number[]): void {
    this.keeps(pinned)
    this.#writing.add(pinned)
  }

  /** Whether an operation is changing the memory of a chunk, and is not through with it in this step. */
  isWriting(chunk: number): boolean {
    for (const pinned of this.#writing) if (pinned.includes(chunk)) return true
    return false
  }

  /** It does no more; or they are the application's from now on. */
  keepsNoMore(pinned: readonly number[]): void {
    if (this.#pinned.size > 0) this.#pinned.delete(pinned)
    if (this.#writing.size > 0) this.#writing.delete(pinned)
  }

  /** An operation that pinned these chunks, or none, is over. */
  end(pinned: readonly number[]): void {
    this.keepsNoMore(pinned)
    if (--this.count === 0) this.#onIdle()
  }

  /** While a claim waits it is not under way, and `letGo` releases what it keeps. */
  waits(pinned: readonly number[], letGo: () => void): void {
    this.#letGo.set(pinned, letGo)
    if (--this.count === 0) this.#onIdle()
  }

  goesOn(pinned: readonly number[]): void {
    this.#letGo.delete(pinned)
    this.count++
  }

  /** Has claims that wait let go of a chunk; says whether one did. */
  release(chunk: number): boolean {
    for (const [pinned, letGo] of this.#letGo) {
      if (!pinned.includes(chunk)) continue
      letGo()
      return true
    }
    return false
  }

  /** Whether the application has pinned a chunk, whoever else has. */
  isPinnedByApplication(chunk: number): boolean {
    let operations = 0
    for (const pinned of this.#pinned) if (pinned.includes(chunk)) operations++
    return this.#chunks.pinsOf(chunk) > operations
  }
}
