import { afterInput, BitSet, type HostTimer, isFullError, startTimer, stopTimer } from '@spillway/core'
import type { HoleUnits, StorageCall } from './file-storage.ts'

/** Shorter runs are not worth a hole: they stay warm. */
const shortestHoleBytes = 64 * 1024
/** Most bytes in one call, so that slots do not wait long for it. */
const sliceBytes = 32 * 1024 * 1024
/** Runs that need no call, and so no wait, between two turns of the event loop. */
const shortRunsPerTurn = 1024
/** A file system at its quota may refuse holes, too; it is asked again after this long. */
const refusedForMs = 1000

export interface HolePuncherParts {
  readonly pageSizeBytes: number
  readonly units: HoleUnits
  readonly punch: StorageCall
  /** Is told of each run that nothing is done with any more, and whether it is a hole now. */
  readonly settle: (firstSlot: number, count: number, isHole: boolean) => void
  /** Takes a slot that is free, so that the hole may cover it, too; false when it is in use. */
  readonly claim: (slot: number) => boolean
  /** Whether none of these slots has space in the file. */
  readonly isBare: (firstSlot: number, count: number) => boolean
  /** Bytes that the file system has back. */
  readonly gaveBack: (bytes: number) => void
}

interface Run {
  readonly first: number
  readonly count: number
}

/**
 * Gives the space of dropped slots back, off everybody's path: what was dropped is a set of bits, in which a cursor goes
 * round and finds the runs that neighbours have joined to; they are punched slice by slice, one at a time. Where the file system
 * takes back whole pieces only, a run is widened over free neighbours, or else narrowed to whole pieces.
 */
export class HolePuncher {
  /** Bytes that came back. */
  punchedBytes = 0
  readonly #parts: HolePuncherParts
  readonly #queued = new BitSet()
  /** Slots that are holes, by the number of a piece of which other slots are not. */
  readonly #holesInPieces = new Map<number, number>()
  #cursor = 0
  #punchingSlots = 0
  #sliceDone: Promise<void> | undefined
  #afterSlice: (() => void) | undefined
  #running: Promise<void> | undefined
  #pause: HostTimer | undefined
  #stopped = false

  constructor(parts: HolePuncherParts) {
    this.#parts = parts
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
   * somebody needs them. Others may take them first: look, and come again while any are queued.
   */
  async release(wanted: number): Promise<void> {
    let released = 0
    while (released < wanted) {
      const run = this.#next(wanted - released)
      if (run === undefined) break
      this.#parts.settle(run.first, run.count, false)
      released += run.count
    }
    if (released > 0 || this.#punchingSlots === 0) return
    this.#sliceDone ??= new Promise((resolve) => {
      this.#afterSlice = () => {
        this.#sliceDone = undefined
        this.#afterSlice = undefined
        resolve()
      }
    })
    await this.#sliceDone
  }

  /** Waits until nothing is being punched. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  /** Lets no more punching begin and waits for what is under way. */
  async stop(): Promise<void> {
    this.#stopped = true
    stopTimer(this.#pause)
    await this.#running
  }

  #schedule(): void {
    if (this.#running !== undefined || this.#stopped || this.#pause !== undefined) return
    this.#running = this.#run().finally(() => {
      this.#running = undefined
      if (this.#queued.count > 0) this.#schedule()
    })
  }

  async #run(): Promise<void> {
    // Wait for what is dropped in the same go: it may join to longer runs.
    await new Promise<void>(afterInput)
    let shortRuns = 0
    while (!this.#stopped && this.#pause === undefined) {
      const next = this.#next(Math.max(1, sliceBytes / this.#parts.pageSizeBytes))
      if (next === undefined) return
      const run = this.#fitted(next)
      if (run !== undefined && run.count * this.#parts.pageSizeBytes >= shortestHoleBytes) {
        this.#punchingSlots = run.count
        await this.#punch(run)
        this.#punchingSlots = 0
        this.#afterSlice?.()
        continue
      }
      if (run !== undefined) this.#parts.settle(run.first, run.count, false)
      if (++shortRuns % shortRunsPerTurn === 0) await new Promise<void>(afterInput)
    }
  }

  async #punch({ first, count }: Run): Promise<void> {
    const { pageSizeBytes, punch, settle } = this.#parts
    try {
      await punch(first * pageSizeBytes, count * pageSizeBytes)
    } catch (failure) {
      if (!isFullError(failure)) {
        // Space that cannot be given back is space to use again.
        settle(first, count, false)
        return
      }
      this.#queued.set(first, count)
      this.#pause = startTimer(() => {
        this.#pause = undefined
        if (this.#queued.count > 0) this.#schedule()
      }, refusedForMs)
      this.#pause.unref?.()
      return
    }
    settle(first, count, true)
    const bytes = this.#bytesBack(first, count)
    this.punchedBytes += bytes
    this.#parts.gaveBack(bytes)
  }

  /** The run as it is punched: whole pieces where parts of them would not come back; `undefined` when nothing is left of it. */
  #fitted(run: Run): Run | undefined {
    const { units, settle } = this.#parts
    if (units.slots <= 1) return run
    const end = run.first + run.count
    const wideFirst = run.first - (run.first % units.slots)
    const wideEnd = Math.ceil(end / units.slots) * units.slots
    let from = this.#widened(wideFirst, run.first) ? wideFirst : run.first
    let to = this.#widened(end, wideEnd) ? wideEnd : end
    if (units.partsAddUp) return { first: from, count: to - from }
    const narrowFirst = Math.ceil(from / units.slots) * units.slots
    const narrowEnd = to - (to % units.slots)
    if (narrowEnd <= narrowFirst) {
      settle(from, to - from, false)
      return undefined
    }
    if (narrowFirst > from) settle(from, narrowFirst - from, false)
    if (to > narrowEnd) settle(narrowEnd, to - narrowEnd, false)
    from = narrowFirst
    to = narrowEnd
    return { first: from, count: to - from }
  }

  /** Takes the slots of a range that are queued or free for the hole: all of them, or none. Queued ones stay warm then. */
  #widened(first: number, end: number): boolean {
    for (let slot = first; slot < end; slot++) {
      if (this.#queued.has(slot)) {
        this.#queued.clear(slot, 1)
        continue
      }
      if (this.#parts.claim(slot)) continue
      if (slot > first) this.#parts.settle(first, slot - first, false)
      return false
    }
    return true
  }

  #bytesBack(first: number, count: number): number {
    const { pageSizeBytes, units, isBare } = this.#parts
    if (!units.partsAddUp || units.slots <= 1) return count * pageSizeBytes
    let slots = 0
    for (let slot = first; slot < first + count; ) {
      const piece = Math.floor(slot / units.slots)
      const length = Math.min((piece + 1) * units.slots, first + count) - slot
      const holes = (this.#holesInPieces.get(piece) ?? 0) + length
      if (isBare(piece * units.slots, units.slots)) {
        this.#holesInPieces.delete(piece)
        slots += Math.min(holes, units.slots)
      } else {
        this.#holesInPieces.set(piece, holes)
      }
      slot += length
    }
    return slots * pageSizeBytes
  }

  /** Takes the next run out of the queue. */
  #next(mostSlots: number): Run | undefined {
    const run = this.#queued.runFrom(this.#cursor, mostSlots) ?? this.#queued.runFrom(0, mostSlots)
    if (run === undefined) return undefined
    this.#queued.clear(run.first, run.count)
    this.#cursor = run.first + run.count
    return run
  }
}
