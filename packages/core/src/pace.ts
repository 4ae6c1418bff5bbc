import { afterInput, nowMs } from './host/timers.ts'

/**
 * Keeps work from holding the event loop. There is one loop, so there is one pacer for everything in the process: a
 * hundred calls together hold the loop no longer than one alone.
 *
 *   mayWork() ── true ──▶ work ──▶ mayWork() ── … ── false: half a millisecond is over ──▶ onTurn(start)
 *                                                                                            │
 *                     start() ◀── in the order of arrival ◀── the loop has polled for input ◀┘
 *
 * Work is measured in bytes that are copied, or what takes as long. The clock is only read after a quarter of a mebibyte
 * of it, so that a small call pays a few nanoseconds. What waits is started by its bytes, because the work of a promise
 * begins after the moment in which the clock could be read: two mebibytes a turn, and always one piece.
 */

/** Bytes worth copying in one step, between two questions. */
export const sliceBytes = 2 ** 20
/** What a call counts as that copies next to nothing: a fraction of a microsecond. */
export const smallCallBytes = 4096

/** Longest stretch of work in one turn. The piece that is under way then is finished: its length bounds the rest. */
const maxStretchMs = 0.5
const bytesBetweenLooks = 2 ** 18
/** Started in one turn for those that waited. */
const bytesPerTurn = 2 * 2 ** 20

interface Waiting {
  readonly workBytes: number
  readonly start: () => void
}

/** Whether a stretch is being measured; the turn that ends it is scheduled. */
let isMeasuring = false
let startedAtMs = 0
let bytesSinceLook = 0
let waiting: Waiting[] = []
let firstWaiting = 0

/**
 * Whether `workBytes` of work may be done now, without waiting. True at least once in every turn of the loop. It must be
 * asked at once before the work.
 */
export function mayWork(workBytes: number): boolean {
  bytesSinceLook += workBytes
  return bytesSinceLook < bytesBetweenLooks || look()
}

/** Calls `start` in the next turn in which `workBytes` may be worked on, behind those that came before. */
export function onTurn(workBytes: number, start: () => void): void {
  waiting.push({ workBytes, start })
  measure()
}

/** `undefined`: go on at once. Otherwise what to await before this much is worked on. */
export function pace(workBytes: number): Promise<void> | undefined {
  return mayWork(workBytes) ? undefined : nextTurn(workBytes)
}

/**
 * Does `work` at once where it may be done now, else at the start of its turn. What takes longer than its bytes let expect belongs here: the
 * clock is looked at when it is done, so that nothing else is started in a turn that it has used up.
 */
export function workInTurn<Result>(workBytes: number, work: () => Result): Result | Promise<Result> {
  if (mayWork(workBytes)) return work()
  return new Promise((resolve, reject) => {
    onTurn(workBytes, () => {
      try {
        resolve(work())
      } catch (failure) {
        reject(failure)
      }
    })
  })
}

/** As `pace`, but never at once: what was asked of a device before gets on its way first. */
export function nextTurn(workBytes: number): Promise<void> {
  return new Promise((start) => onTurn(workBytes, start))
}

/** Resolves after the event loop had its turn: timers, input and other callers run in between. */
export function yieldToEventLoop(): Promise<void> {
  return new Promise(afterInput)
}

function look(): boolean {
  if (isMeasuring && nowMs() - startedAtMs > maxStretchMs) return false
  measure()
  bytesSinceLook = 0
  return true
}

function measure(): void {
  if (isMeasuring) return
  isMeasuring = true
  startedAtMs = nowMs()
  afterInput(turn)
}

function turn(): void {
  isMeasuring = false
  bytesSinceLook = 0
  if (firstWaiting === waiting.length) return
  measure()
  let leftBytes = bytesPerTurn
  do {
    const { workBytes, start } = waiting[firstWaiting++]
    leftBytes -= workBytes
    // An error of `start` ends this turn; the next one is scheduled and goes on with the others.
    start()
  } while (
    firstWaiting < waiting.length &&
    waiting[firstWaiting].workBytes <= leftBytes &&
    nowMs() - startedAtMs <= maxStretchMs
  )
  forgetStarted()
}

/** Keeps the list short without moving it for each that was started. */
function forgetStarted(): void {
  if (firstWaiting === waiting.length) waiting = []
  else if (firstWaiting < 1024) return
  else waiting = waiting.slice(firstWaiting)
  firstWaiting = 0
}
