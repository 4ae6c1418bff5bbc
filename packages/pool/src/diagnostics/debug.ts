import { afterInput, nowMs, SpillwayError, startTimer } from '@spillway/core'
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

/** A buffer, or a pin of one, that somebody has to end. */
export interface Watched {
  readonly label: string
  /** Whether it was ended, or is being ended by a `close` of its pool. */
  readonly closing: boolean
  /** Who made it, in debug mode. */
  readonly madeAt: string | undefined
}

/** What was collected as garbage without having been ended, and not told of yet. */
class LeakReport {
  readonly #code: string
  readonly #one: (label: string) => string
  readonly #many: string
  #count = 0
  #labels: string[] = []
  #madeAt: string | undefined
  #isScheduled = false
  #nextAtMs = 0

  constructor(code: string, one: (label: string) => string, many: string) {
    this.#code = code
    this.#one = one
    this.#many = many
  }

  /** Gathers: the collector finds many at once, and one warning has to do for them. */
  add({ label, closing, madeAt }: Watched): void {
    if (closing) return
    this.#count++
    if (this.#labels.length < mostLabels) this.#labels.push(label)
    this.#madeAt ??= madeAt
    if (this.#isScheduled) return
    this.#isScheduled = true
    const delayMs = this.#nextAtMs - nowMs()
    if (delayMs <= 0) afterInput(() => this.#tell())
    else startTimer(() => this.#tell(), delayMs).unref?.()
  }

  #tell(): void {
    const [first] = this.#labels
    const more = this.#count - this.#labels.length
    const labels = this.#labels.join(', ') + (more > 0 ? ` and ${more} more` : '')
    const message = this.#count === 1 ? this.#one(first!) : `${this.#count} ${this.#many}: ${labels}`
    warn(this.#code, message, this.#madeAt)
    this.#count = 0
    this.#labels = []
    this.#madeAt = undefined
    this.#isScheduled = false
    this.#nextAtMs = nowMs() + leastIntervalMs
  }
}

const mostLabels = 5
const leastIntervalMs = 10_000

const lostPins = new LeakReport(
  'SPILLWAY_LEAKED_PIN',
  (label) => `a pin of buffer ${label} was never released`,
  'pins were never released, of buffers',
)
const lostBuffers = new LeakReport(
  'SPILLWAY_LEAKED_BUFFER',
  (label) => `buffer ${label} was never freed`,
  'buffers were never freed',
)
const pins = new FinalizationRegistry<Watched>((pin) => lostPins.add(pin))
const buffers = new FinalizationRegistry<Watched>((buffer) => lostBuffers.add(buffer))

/** Watches a buffer until it is `closing`; tells when it is collected before. */
export function watchBuffer(subject: object, buffer: Watched): void {
  buffers.register(subject, buffer)
}

/** Watches a pin until `unwatchPin`. */
export function watchPin(subject: object, pin: Watched): void {
  pins.register(subject, pin, pin)
}

export function unwatchPin(pin: Watched): void {
  pins.unregister(pin)
}

/**
 * Where the application called `call`, which is under way, for what is never ended. The stack begins with its own line where the platform
 * can do that: how many frames of the pool lie above it would otherwise decide whether it is in the stack at all.
 */
export function calledFrom(call: (...given: never[]) => unknown): string | undefined {
  const here = new Error('made here')
  Error.captureStackTrace?.(here, call)
  return here.stack
}
