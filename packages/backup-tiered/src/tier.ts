import {
  type Backup,
  type HandleRun,
  InnerPages,
  isFullError,
  isSpillwayError,
  type KeptRun,
  nowMs,
} from '@spillway/core'
import { Arrivals } from './arrivals.ts'
import type { TierSettings } from './options.ts'
import { Reads } from './reads.ts'

const shortestRestMs = 100
const longestRestMs = 10_000
/** Runs without any page that is still here, of which one search for the oldest pages passes at most so many. */
const mostLooks = 1024

/** What `stats()` tells of a tier. */
export interface TierStats {
  readonly name: string
  readonly livePages: number
  /** Pages that were read from it. */
  readonly hits: number
  /** Calls that failed, other than for a lack of room. */
  readonly errors: number
  /** Pages that came from another tier, and that went to another one. */
  readonly movedInPages: number
  readonly movedOutPages: number
  /** Whether it failed to store lately, and is passed by for a moment. */
  readonly isPassedBy: boolean
  /** Pages that it would not drop when they were; they are tried again. */
  readonly refusedPages: number
}

/** One backup of several, with the pages that are in it, oldest first. */
export class Tier {
  readonly backup: Backup
  readonly pages: InnerPages
  readonly settings: TierSettings
  /** Reads under way, which may use copies that have moved meanwhile. */
  readonly reads = new Reads()
  livePages = 0
  hits = 0
  errors = 0
  movedInPages = 0
  movedOutPages = 0
  readonly #arrivals = new Arrivals((run) => !this.pages.keptOf(run).next().done)
  /** What was refused, call by call. */
  #refused: (readonly HandleRun[])[] = []
  #restMs = 0
  #passedByUntilMs = 0

  constructor(name: string, settings: TierSettings) {
    this.settings = settings
    this.backup = settings.backup
    this.pages = new InnerPages(name, settings.backup)
  }

  get isPassedBy(): boolean {
    return nowMs() < this.#passedByUntilMs
  }

  get hasRefused(): boolean {
    return this.#refused.length > 0
  }

  get metadataBytes(): number {
    return this.pages.metadataBytes + this.#arrivals.metadataBytes
  }

  get stats(): TierStats {
    const { backup, livePages, hits, errors, movedInPages, movedOutPages, isPassedBy } = this
    const refusedPages = this.#refused.flat().reduce((pages, { count }) => pages + count, 0)
    return {
      name: backup.name,
      livePages,
      hits,
      errors,
      movedInPages,
      movedOutPages,
      isPassedBy,
      refusedPages,
    }
  }

  /** Bytes that it has room for now; none where it does not say. */
  async roomBytes(): Promise<number> {
    try {
      return await this.backup.bytesAvailable()
    } catch {
      return 0
    }
  }

  /** Pages were stored here, by `pages`. */
  arrived(run: HandleRun): void {
    this.#arrivals.add(run)
    this.livePages += run.count
  }

  /** Takes in pages that were stored in the backup by other means. */
  adopt(run: KeptRun): void {
    this.pages.adopt(run)
    this.arrived({ first: run.first, count: run.count })
  }

  /** Those of some pages that are here are here no more. Tells which, and where the backup has them. */
  release(run: HandleRun): KeptRun[] {
    const released = [...this.pages.keptOf(run)]
    this.pages.forget(released)
    for (const { count } of released) this.livePages -= count
    return released
  }

  /** Takes back pages that were released, because they could not be dropped. */
  takeBack(released: readonly KeptRun[]): void {
    for (const run of released) this.adopt(run)
  }

  /**
   * The oldest pages, at most so many. They stay here, but are not among the oldest any more: `putBack` those that do not move. None, though
   * there are some, when too many that came before have left: then the next call goes on.
   */
  takeOldest(mostPages: number): HandleRun[] {
    const oldest: HandleRun[] = []
    let pages = 0
    for (let looks = 0; pages < mostPages && looks < mostLooks; looks++) {
      const run = this.#arrivals.take(mostPages - pages)
      if (run === undefined) break
      for (const { first, count } of this.pages.keptOf(run)) {
        oldest.push({ first, count })
        pages += count
      }
    }
    return oldest
  }

  get hasOldest(): boolean {
    return !this.#arrivals.isEmpty
  }

  /** Puts pages that could not move behind all others. */
  putBack(runs: readonly HandleRun[]): void {
    for (const run of runs) this.#arrivals.add(run)
  }

  /** A call that stored here failed: full for now, or broken, and then it is passed by for a while. */
  failed(error: unknown): void {
    if (isFullError(error) || isOfCaller(error)) return
    this.errors++
    if (this.isPassedBy) return
    this.#restMs = Math.min(longestRestMs, Math.max(shortestRestMs, this.#restMs * 2))
    this.#passedByUntilMs = nowMs() + this.#restMs
  }

  worked(): void {
    this.#restMs = 0
    this.#passedByUntilMs = 0
  }

  /** Drops pages of the backup that nobody can name any more; what it refuses is tried again later. */
  async discard(handles: readonly HandleRun[]): Promise<void> {
    if (handles.length > 0 && !(await this.#drops(handles))) this.#refused.push(handles)
  }

  /** Tries again what was refused before. One call at a time. */
  async retryRefused(): Promise<void> {
    for (const handles of [...this.#refused]) {
      if (await this.#drops(handles)) this.#refused.splice(this.#refused.indexOf(handles), 1)
    }
  }

  async #drops(handles: readonly HandleRun[]): Promise<boolean> {
    try {
      await this.backup.drop(handles)
      return true
    } catch {
      return false
    }
  }
}

/** Whether a call ended for its signal or its memory, which says nothing of the tier. */
export function isOfCaller(error: unknown): boolean {
  return isSpillwayError(error) && (error.code === 'EINTR' || error.code === 'EFAULT')
}
