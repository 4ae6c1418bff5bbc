import { yieldToEventLoop } from '@spillway/core'
import type { StorageCall } from './file-storage.ts'
import { SlotBits } from './slot-bits.ts'

/** Shorter runs are not worth a hole: they stay warm. */
const shortestHoleBytes = 64 * 1024
/** Most bytes in one call, so that slots do not wait long for it. */
const sliceBytes = 32 * 1024 * 1024
/** Runs that need no call, and so no wait, between two turns of the event loop. */
const shortRunsPerTurn = 1024

/**
 * Gives the space of dropped slots back, off everybody's path: what was dropped is a set of bits, in which a cursor goes
 * round and finds the runs that neighbours have joined to; they are punched slice by slice, one at a time.
 */
export class HolePuncher {
  punchedBytes = 0
  readonly #pageSizeBytes: number
  readonly #punch: StorageCall
  readonly #settle: (firstSlot: number, count: number, punched: boolean) => void
  readonly #queued = new SlotBits()
  #cursor = 0
  #punchingSlots = 0
  #sliceDone: Promise<void> | undefined
  #afterSlice: (() => void) | undefined
  #running: Promise<void> | undefined
  #stopped = false

  /** `settle` is told of each run that nothing is done with any more. */
  constructor(
    pageSizeBytes: number,
    punch: StorageCall,
    settle: (firstSlot: number, count: number, punched: boolean) => void,
  ) {
    this.#pageSizeBytes = pageSizeBytes
    this.#punch = punch
    this.#settle = settle
  }

  /** Slots that are not released yet. */
  get queuedSlots(): number {
    return this.#queued.count + this.#punchingSlots
  }

  add(first: number, count: number): void {
    this.#queued.set(first, count)
    this.#schedule()
  }

  /**
   * Gives up punching `wanted` of the slots that are queued, or waits for the slice under way when there are no others:
   * somebody needs them.
   */
  async release(wanted: number): Promise<void> {
    let released = 0
    while (released < wanted) {
      const run = this.#next(wanted - released)
      if (run === undefined) break
      this.#settle(run.first, run.count, false)
      released += run.count
    }
    if (released > 0) return
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
      if (this.#queued.count > 0) this.#schedule()
    })
  }

  async #run(): Promise<void> {
    // Wait for what is dropped in the same go: it may join to longer runs.
    await yieldToEventLoop()
    let shortRuns = 0
    while (!this.#stopped) {
      const run = this.#next(Math.max(1, sliceBytes / this.#pageSizeBytes))
      if (run === undefined) return
      this.#punchingSlots = run.count
      const isShort = run.count * this.#pageSizeBytes < shortestHoleBytes
      const punched = !isShort && (await this.#punched(run.first, run.count))
      this.#punchingSlots = 0
      this.#settle(run.first, run.count, punched)
      this.#afterSlice?.()
      if (isShort && ++shortRuns % shortRunsPerTurn === 0) {
        await yieldToEventLoop()
      }
    }
  }

  async #punched(first: number, count: number): Promise<boolean> {
    const bytes = count * this.#pageSizeBytes
    try {
      await this.#punch(first * this.#pageSizeBytes, bytes)
      this.punchedBytes += bytes
      return true
    } catch {
      // Space that cannot be given back is space to use again.
      return false
    }
  }

  /** Takes the next run out of the queue. */
  #next(mostSlots: number): { first: number; count: number } | undefined {
    const run = this.#queued.runFrom(this.#cursor, mostSlots) ?? this.#queued.runFrom(0, mostSlots)
    if (run === undefined) return undefined
    this.#queued.clear(run.first, run.count)
    this.#cursor = run.first + run.count
    return run
  }
}
