import {
  firstHandles,
  type HandleRun,
  type KeptRun,
  nowMs,
  orAbort,
  pace,
  restHandles,
  type StagingBuffer,
  StagingBuffers,
  smallCallBytes,
  startTimer,
  stopTimer,
} from '@spillway/core'
import { SecondReads } from './second-reads.ts'
import type { Tier } from './tier.ts'

export interface MoverParts {
  readonly tiers: readonly Tier[]
  readonly pageSizeBytes: number
  readonly bytesPerSecond: number
  readonly promotes: boolean
}

type Outcome = 'moved' | 'failed' | 'nothing to do'

const leastStagingBytes = 4 * 2 ** 20
const mostStagingBytes = 16 * 2 ** 20
const shortestPauseMs = 500
const longestPauseMs = 10_000
/** While calls need the room of copies. */
const heldPauseMs = 1
/** Stored between two looks at how full tiers are. */
const bytesBetweenLooks = 256 * 2 ** 10
/** Pages that wait to be promoted. */
const mostToPromote = 2 ** 16
const pagesBetweenTurns = 128

/**
 * Moves pages between tiers, one batch at a time and at a bounded rate:
 *
 *   read from the old tier ─▶ store whole in the new one ─▶ name the new place ─▶ reads of the old one are over ─▶ drop there
 *
 * So a page is always whole in the place that it is named by, and a read waits for no move.
 */
export class Mover {
  readonly #parts: MoverParts
  readonly #staging: StagingBuffers
  readonly #batchPages: number
  readonly #secondReads = new SecondReads()
  readonly #stopping = new AbortController()
  #toPromote: number[] = []
  #storedSinceLook = 0
  #isRunning = false
  #running: Promise<void> = Promise.resolve()
  #wakeUp: (() => void) | undefined
  #movedBytes = 0
  /** Ends when no page is on its way, and no old copy is left to be dropped. */
  #underWay: Promise<unknown> = Promise.resolve()
  #copiesUnderWay = 0
  #endedMoves = 0
  #held = 0
  #failuresInARow = 0

  constructor(parts: MoverParts) {
    this.#parts = parts
    const { tiers, pageSizeBytes, bytesPerSecond } = parts
    const liked = Math.max(
      ...tiers.map(({ backup }) => backup.capabilities.preferredBatchPages * pageSizeBytes),
    )
    const bytes = Math.min(mostStagingBytes, Math.max(leastStagingBytes, liked), bytesPerSecond)
    this.#batchPages = Math.max(1, Math.floor(bytes / pageSizeBytes))
    this.#staging = new StagingBuffers(1, this.#batchPages * pageSizeBytes)
  }

  get figures() {
    return { movedBytes: this.#movedBytes, stagingBytes: this.#staging.heldBytes }
  }

  /** Whether pages may lie in two tiers for the moment. */
  get holdsCopies(): boolean {
    return this.#copiesUnderWay > 0
  }

  /** Moves that have ended: another number means that there may be more room than there was. */
  get endedMoves(): number {
    return this.#endedMoves
  }

  /** Runs `work` when the move that is under way is over, and before the next. Rejects with `EINTR` when it is aborted before. */
  async between<Result>(work: () => Promise<Result>, signal?: AbortSignal): Promise<Result> {
    this.#held++
    try {
      while (this.holdsCopies) await orAbort(this.#underWay, signal)
      return await work()
    } finally {
      this.#held--
    }
  }

  /** So many pages were stored, or something was dropped: looks whether pages have to move. */
  wake(storedPages: number): void {
    const { tiers, pageSizeBytes } = this.#parts
    this.#storedSinceLook += storedPages * pageSizeBytes
    const hasReason =
      this.#storedSinceLook >= bytesBetweenLooks ||
      this.#toPromote.length > 0 ||
      tiers.some(({ hasRefused }) => hasRefused)
    if (!hasReason || this.#isRunning || this.#isStopped) return
    this.#isRunning = true
    this.#running = this.#run()
  }

  /** Pages were read from a tier: those of a slower one that were so before are worth a faster one. */
  wasRead(tier: Tier, runs: readonly HandleRun[]): void {
    if (!this.#parts.promotes || tier === this.#parts.tiers[0]) return
    for (const { first, count } of runs) {
      for (let page = first; page < first + count; page++) {
        if (this.#toPromote.length < mostToPromote && this.#secondReads.isSecond(page)) {
          this.#toPromote.push(page)
        }
      }
    }
    if (this.#toPromote.length > 0) this.wake(0)
  }

  /** Ends what is under way, and begins nothing any more. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#wakeUp?.()
    await this.#running
    while (this.holdsCopies) await this.#underWay
    this.#staging.close()
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      this.#storedSinceLook = 0
      if (this.#held > 0) {
        await this.#pause(heldPauseMs)
        continue
      }
      const beganMs = nowMs()
      const before = this.#movedBytes
      const outcome = await this.#counted(this.#step())
      if (outcome === 'nothing to do' || this.#isStopped) break
      this.#failuresInARow = outcome === 'failed' ? this.#failuresInARow + 1 : 0
      const dueMs = ((this.#movedBytes - before) / this.#parts.bytesPerSecond) * 1000
      await this.#pause(
        outcome === 'failed'
          ? Math.min(longestPauseMs, shortestPauseMs * 2 ** (this.#failuresInARow - 1))
          : dueMs - (nowMs() - beganMs),
      )
    }
    this.#isRunning = false
  }

  /** Counts pages that lie twice until `work` is over. */
  async #counted<Result>(work: Promise<Result>): Promise<Result> {
    this.#copiesUnderWay++
    this.#underWay = Promise.allSettled([this.#underWay, work])
    try {
      return await work
    } finally {
      this.#copiesUnderWay--
      this.#endedMoves++
    }
  }

  async #step(): Promise<Outcome> {
    const { tiers } = this.#parts
    for (const tier of tiers) await tier.retryRefused()
    for (let index = 0; index < tiers.length - 1; index++) {
      const pages = await this.#pagesAbove(tiers[index])
      if (pages > 0) return await this.#demote(index, pages)
    }
    if (this.#toPromote.length > 0) return await this.#promote()
    return tiers.some(({ hasRefused }) => hasRefused) ? 'failed' : 'nothing to do'
  }

  /** Pages by which a tier is above its low mark, once it is above the high one. */
  async #pagesAbove(tier: Tier): Promise<number> {
    const { pageSizeBytes } = this.#parts
    const { highMark, lowMark } = tier.settings
    if (highMark === undefined || lowMark === undefined || tier.livePages === 0) return 0
    const roomBytes = await tier.roomBytes()
    const usedBytes = tier.livePages * pageSizeBytes
    const bytesOf = (mark: number) => (mark <= 1 ? mark * (usedBytes + roomBytes) : mark)
    if (usedBytes <= bytesOf(highMark)) return 0
    return Math.ceil((usedBytes - bytesOf(lowMark)) / pageSizeBytes)
  }

  /** Moves the oldest pages of a tier on, to the next that takes them. */
  async #demote(index: number, mostPages: number): Promise<Outcome> {
    const { tiers, pageSizeBytes } = this.#parts
    const from = tiers[index]
    for (const to of tiers.slice(index + 1)) {
      if (to.isPassedBy) continue
      const roomPages = Math.floor((await to.roomBytes()) / pageSizeBytes)
      const { preferredBatchPages } = to.backup.capabilities
      const pages = Math.min(this.#batchPages, mostPages, preferredBatchPages, roomPages)
      if (pages === 0) continue
      const oldest = from.takeOldest(pages)
      if (oldest.length === 0) return from.hasOldest ? 'moved' : 'nothing to do'
      const { moved, hasFailed } = await this.#move(from, to, oldest)
      from.putBack(restHandles(oldest, moved))
      if (moved > 0 || !hasFailed) return 'moved'
    }
    return 'failed'
  }

  async #promote(): Promise<Outcome> {
    const { tiers, pageSizeBytes } = this.#parts
    const [fast] = tiers
    const wanted = [...new Set(this.#toPromote.splice(0, this.#batchPages))].sort((one, other) => one - other)
    if (fast.isPassedBy) return 'moved'
    let roomPages = Math.floor((await fast.roomBytes()) / pageSizeBytes)
    for (const from of tiers.slice(1)) {
      const pages = wanted.filter((page) => from.pages.has(page)).slice(0, roomPages)
      if (pages.length === 0) continue
      const { moved } = await this.#move(
        from,
        fast,
        pages.map((first) => ({ first, count: 1 })),
      )
      roomPages -= moved
    }
    return 'moved'
  }

  /** Moves pages that are in `from`; how many of them, from the first on, have, and whether a tier stopped it. */
  async #move(
    from: Tier,
    to: Tier,
    pages: readonly HandleRun[],
  ): Promise<{ moved: number; hasFailed: boolean }> {
    const { pageSizeBytes } = this.#parts
    const { signal } = this.#stopping
    const buffer = this.#stagingBuffer()
    if (buffer === undefined) return { moved: 0, hasFailed: true }
    try {
      const wanted = countOf(pages)
      const memory = buffer.memory.subarray(0, wanted * pageSizeBytes)
      const stopped = await from.pages.copy(pages, [memory], { signal })
      const read = stopped?.pages ?? wanted
      // A page that was dropped meanwhile may be what stopped it.
      const hasFailed = stopped !== undefined && from.pages.has(nth(pages, read))
      if (hasFailed && !this.#isStopped) from.errors++
      if (read === 0) return { moved: 0, hasFailed }
      const { handles, error } = await this.#stored(to, memory.subarray(0, read * pageSizeBytes))
      const stored = countOf(handles)
      this.#movedBytes += stored * pageSizeBytes
      const old = await this.#rename(from, to, placed(firstHandles(pages, stored), handles))
      if (old.length > 0) void this.#counted(dropWhenRead(from, old))
      return { moved: stored, hasFailed: hasFailed || error !== undefined }
    } finally {
      this.#staging.give(buffer)
    }
  }

  /** Memory for a batch, or none where the system has none now: that is a move that failed, and is tried again like any other. */
  #stagingBuffer(): StagingBuffer | undefined {
    try {
      return this.#staging.takeNow()
    } catch {
      return undefined
    }
  }

  async #stored(to: Tier, memory: Uint8Array): Promise<{ handles: readonly HandleRun[]; error?: unknown }> {
    const { signal } = this.#stopping
    try {
      const { handles, error } = await to.backup.backupPages([memory], { signal })
      if (error === undefined) to.worked()
      else to.failed(error)
      return { handles, error }
    } catch (error) {
      to.failed(error)
      return { handles: [], error }
    }
  }

  /** Names the new places of pages that were not dropped meanwhile. Returns the handles of their old ones. */
  async #rename(from: Tier, to: Tier, moved: Iterable<KeptRun>): Promise<HandleRun[]> {
    const old: HandleRun[] = []
    const unwanted: HandleRun[] = []
    for (const run of moved) {
      const turn = pace(smallCallBytes)
      if (turn !== undefined) await turn
      const released = from.release(run)
      let done = run.first
      for (const { first, count, handle } of released) {
        if (first > done) unwanted.push({ first: run.handle + done - run.first, count: first - done })
        old.push({ first: handle, count })
        to.adopt({ first, count, handle: run.handle + first - run.first })
        from.movedOutPages += count
        to.movedInPages += count
        done = first + count
      }
      const end = run.first + run.count
      if (end > done) unwanted.push({ first: run.handle + done - run.first, count: end - done })
    }
    await to.discard(unwanted)
    return old
  }

  /** Waits, without keeping the process alive. */
  async #pause(delayMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = startTimer(resolve, Math.max(0, delayMs))
      timer.unref?.()
      this.#wakeUp = () => {
        stopTimer(timer)
        resolve()
      }
    })
    this.#wakeUp = undefined
  }
}

async function dropWhenRead(tier: Tier, handles: readonly HandleRun[]): Promise<void> {
  await tier.reads.over()
  await tier.discard(handles)
}

/** Pages and as many handles, in runs of both that go on side by side. */
function* placed(pages: readonly HandleRun[], handles: readonly HandleRun[]): Generator<KeptRun> {
  let at = 0
  let used = 0
  for (const { first, count } of pages) {
    for (let done = 0; done < count; ) {
      const length = Math.min(count - done, handles[at].count - used, pagesBetweenTurns)
      yield { first: first + done, count: length, handle: handles[at].first + used }
      done += length
      used += length
      if (used < handles[at].count) continue
      at++
      used = 0
    }
  }
}

function countOf(runs: readonly HandleRun[]): number {
  return runs.reduce((pages, { count }) => pages + count, 0)
}

function nth(runs: readonly HandleRun[], index: number): number {
  const [{ first }] = restHandles(runs, index)
  return first
}
