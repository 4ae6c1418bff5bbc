interface SlotRun {
  first: number
  count: number
}

/** Shorter runs are not worth a hole: they stay warm. */
const shortestHoleBytes = 64 * 1024
/** Most bytes in one call: it is synchronous, and the event loop waits for it. */
const sliceBytes = 2 * 1024 * 1024

/**
 * Gives the space of dropped slots back, off everybody's path: what was dropped lately is sorted, joined to runs and
 * punched slice by slice, one slice per turn of the event loop.
 */
export class HolePuncher {
  punchedBytes = 0
  readonly #pageSizeBytes: number
  readonly #punch: (offsetBytes: number, lengthBytes: number) => void
  readonly #release: (firstSlot: number, count: number, punched: boolean) => void
  #added: SlotRun[] = []
  /** Sorted so that the next run is the last. */
  #sorted: SlotRun[] = []
  #queuedSlots = 0
  #scheduled = false
  #stopped = false

  /** `release` is told of each run that nothing is done with any more. */
  constructor(
    pageSizeBytes: number,
    punch: (offsetBytes: number, lengthBytes: number) => void,
    release: (firstSlot: number, count: number, punched: boolean) => void,
  ) {
    this.#pageSizeBytes = pageSizeBytes
    this.#punch = punch
    this.#release = release
  }

  get queuedSlots(): number {
    return this.#queuedSlots
  }

  add(first: number, count: number): void {
    this.#queuedSlots += count
    this.#added.push({ first, count })
    this.#schedule()
  }

  /** Gives up punching what is queued: somebody needs the slots. */
  releaseAll(): void {
    for (const { first, count } of [...this.#added, ...this.#sorted]) this.#release(first, count, false)
    this.#added = []
    this.#sorted = []
    this.#queuedSlots = 0
  }

  stop(): void {
    this.#stopped = true
  }

  #schedule(): void {
    if (this.#scheduled || this.#stopped) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#slice()
    })
  }

  #slice(): void {
    if (this.#stopped) return
    if (this.#sorted.length === 0) this.#sort()
    const run = this.#sorted[this.#sorted.length - 1]
    if (run === undefined) return
    const count = Math.min(run.count, Math.max(1, sliceBytes / this.#pageSizeBytes))
    const first = run.first + run.count - count
    run.count -= count
    if (run.count === 0) this.#sorted.pop()
    this.#queuedSlots -= count
    this.#release(first, count, this.#punched(first, count))
    if (this.#queuedSlots > 0) this.#schedule()
  }

  #punched(first: number, count: number): boolean {
    const bytes = count * this.#pageSizeBytes
    if (bytes < shortestHoleBytes) return false
    try {
      this.#punch(first * this.#pageSizeBytes, bytes)
      this.punchedBytes += bytes
      return true
    } catch {
      // Space that cannot be given back is space to use again.
      return false
    }
  }

  #sort(): void {
    const runs = this.#added.sort((one, other) => other.first - one.first)
    this.#added = []
    for (const run of runs) {
      const previous = this.#sorted[this.#sorted.length - 1]
      if (previous !== undefined && run.first + run.count === previous.first) {
        previous.first = run.first
        previous.count += run.count
      } else {
        this.#sorted.push(run)
      }
    }
  }
}
