import { SpillwayError } from '@spillway/core'
import { warn } from '../ground/trace.ts'

/**
 * Debug mode finds the one memory bug that users of a pool can make: a view that is used after its pin was released.
 *
 *   pin ─▶ copies of the range ─▶ release ─▶ what was changed is written back, the copies are detached
 *
 * A detached view throws or reads as empty, where the real one would show whatever lies there by then. The price: memory
 * for the copies, and changes are seen by others at the release.
 */
export class DebugSpans {
  readonly spans: Uint8Array[]
  readonly #memory: readonly Uint8Array[]
  readonly #before: readonly Uint8Array[]

  constructor(memory: readonly Uint8Array[]) {
    this.#memory = memory
    this.#before = memory.map((span) => span.slice())
    this.spans = memory.map((span) => span.slice())
  }

  /** Ends the copies. Throws `EINVAL` when they were changed and `write` was not asked for; the memory is untouched then. */
  end(write: boolean, label: string): void {
    let changed = false
    for (let index = 0; index < this.spans.length; index++) {
      if (this.#writeBack(index, write)) changed = true
      this.#detach(index)
    }
    if (changed && !write) {
      throw new SpillwayError('EINVAL', `a read-only pin of buffer ${label} was written through`, {
        buffer: label,
      })
    }
  }

  /** Byte by byte, so that pins of the same range do not undo each other's changes. */
  #writeBack(index: number, write: boolean): boolean {
    const span = this.spans[index]!
    const before = this.#before[index]!
    const memory = this.#memory[index]!
    let changed = false
    for (let byte = 0; byte < span.byteLength; byte++) {
      if (span[byte] === before[byte]) continue
      changed = true
      if (!write) break
      memory[byte] = span[byte]!
    }
    return changed
  }

  #detach(index: number): void {
    const { buffer } = this.spans[index]!
    if (buffer instanceof ArrayBuffer) buffer.transfer(0)
  }
}

interface Leak {
  readonly what: 'pin' | 'buffer'
  readonly label: string
  readonly stack: string | undefined
}

/** Tells of pins and buffers that were collected as garbage without having been released or freed. */
const leaks = new FinalizationRegistry<Leak>(({ what, label, stack }) => {
  if (what === 'pin') warn('SPILLWAY_LEAKED_PIN', `a pin of buffer ${label} was never released`, stack)
  else warn('SPILLWAY_LEAKED_BUFFER', `buffer ${label} was never freed`, stack)
})

/** Watches a pin or a buffer until `unwatch(token)`; `trackStack` remembers who made it. */
export function watch(subject: object, what: Leak['what'], label: string, trackStack: boolean): object {
  const token = {}
  leaks.register(
    subject,
    { what, label, stack: trackStack ? new Error('made here').stack : undefined },
    token,
  )
  return token
}

export function unwatch(token: object): void {
  leaks.unregister(token)
}
