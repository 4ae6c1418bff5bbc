import type { StorageCall } from './file-storage.ts'

interface SlotRun {
  first: number
  count: number
}

/** Shorter runs are not worth a hole: they stay warm. */
const shortestHoleBytes = 64 * 1024
/** Most bytes in one call, so that slots do not wait long for it. */
const sliceBytes = 32 * 1024 * 1024

/**
 * Gives the space of dropped slots back, off everybody's path: what was dropped lately is sorted, joined to runs and
 * punched slice by slice, one at a time.
 */
export class HolePuncher {
  punchedBytes = 0
  readonly #pageSizeBytes: number
  readonly #punch: StorageCall
  readonly #release: (firstSlot: number, count: number, punched: boolean) => void
  #added: SlotRun[] = []
  /** Sorted so that the next run is the last. */
  #sorted: SlotRun[] = []
  #queuedSlots = 0
  #punchingSlots = 0
  #sliceDone: Promise<void> | undefined
  #afterSlice: (() => void) | undefined
  #running: Promise<void> | undefined
  #stopped = false

  /** `release` is told of each run that nothing is done with any more. */
  constructor(
    pageSizeBytes: number,
    punch: StorageCall,
    release: (firstSlot: number, count: number, punched: boolean) => void,
  ) {
    this.#pageSizeBytes = pageSizeBytes
    this.#punch = punch
    this.#release = release
  }

  /** Slots that are not released yet. */
  get queuedSlots(): number {
    return this.#queuedSlots
  }

  add(first: number, count: number): void {
    this.#queuedSlots += count
    this.#added.push({ first, count })
    this.#schedule()
  }

  /** Gives up punching what is queued, and waits for the slice under way: somebody needs the slots. */
  async releaseAll(): Promise<void> {
    for (const { first, count } of [...this.#added, ...this.#sorted]) this.#release(first, count, false)
    this.#added = []
    this.#sorted = []
    this.#queuedSlots = this.#punchingSlots
    if (this.#punchingSlots === 0) return
    this.#sliceDone ??= new Promise((resolve) => {
      this.#afterSlice = () => {
        this.#sliceDone = undefined
        this.#afterSlice = undefined
        resolve()
      }
    })
    await this.#sliceDone
  }

  /** Lets no more punching begin and waits for what is under way. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#running
  }

  #schedule(): void {
    if (this.#running !== undefined || this.#stopped) return
    this.#running = this.#run().finally(() => {
      this.#running = undefined
      if (this.#queuedSlots > 0) this.#schedule()
    })
  }

  async #run(): Promise<void> {
    // Wait for what is dropped in the same go: it may join to longer runs.
    await new Promise((resolve) => setImmediate(resolve))
    while (!this.#stopped) {
      if (this.#sorted.length === 0) this.#sort()
      const run = this.#sorted[this.#sorted.length - 1]
      if (run === undefined) return
      const count = Math.min(run.count, Math.max(1, sliceBytes / this.#pageSizeBytes))
      const first = run.first + run.count - count
      run.count -= count
      if (run.count === 0) this.#sorted.pop()
      this.#punchingSlots = count
      const punched = await this.#punched(first, count)
      this.#punchingSlots = 0
      this.#queuedSlots -= count
      this.#release(first, count, punched)
      this.#afterSlice?.()
    }
  }

  async #punched(first: number, count: number): Promise<boolean> {
    const bytes = count * this.#pageSizeBytes
    if (bytes < shortestHoleBytes) return false
    try {
      await this.#punch(first * this.#pageSizeBytes, bytes)
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
