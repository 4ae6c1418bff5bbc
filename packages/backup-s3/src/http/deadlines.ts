import { afterInput, type HostTimer, nowMs, startTimer, stopTimer } from '@spillway/core'

/**
 * One timer for everything that waits for the network. A request that is answered in time makes no timer of its own: it
 * is watched while it waits, and what it waits for may put its time off at any moment by setting `dueAt`.
 *
 *   watch ─▶ watched ──(unwatch)──▶ done with it
 *              └─ dueAt is past, and the sockets were read once more ─▶ onDue
 */
export interface Deadline {
  /** Of `performance.now()`, in milliseconds; Infinity: never. After setting it to an earlier time call `watch` again. */
  dueAt: number
  /** Called once, not watched any more. It must not throw. */
  onDue(): void
  /** Its place among those that are watched. Only this file sets it; `notWatched` at first. */
  place: number
}

export const notWatched = -1
/** Due, and about to be told. */
const aboutToBeTold = -2
/** What a timer of Node can wait for at most; it fires at once when it is given more. */
export const longestTimerMs = 2 ** 31 - 1

interface RefTimer extends HostTimer {
  ref?(): unknown
}

const watched: Deadline[] = []
let timer: RefTimer | undefined
let armedFor = Number.POSITIVE_INFINITY

/** Watches a deadline, or looks at it anew. */
export function watch(deadline: Deadline): void {
  if (deadline.place < 0) {
    deadline.place = watched.length
    watched.push(deadline)
    if (watched.length === 1) timer?.ref?.()
  }
  if (deadline.dueAt < armedFor) arm(deadline.dueAt)
}

/** Stops watching a deadline, whether it is watched or not. */
export function unwatch(deadline: Deadline): void {
  const { place } = deadline
  deadline.place = notWatched
  if (place < 0) return
  const last = watched.pop()!
  if (last !== deadline) {
    watched[place] = last
    last.place = place
  }
  // Only who waits keeps the process alive.
  if (watched.length === 0) timer?.unref?.()
}

function arm(at: number): void {
  armedFor = at
  stopTimer(timer)
  const milliseconds = Math.min(longestTimerMs, Math.max(1, Math.ceil(at - nowMs())))
  // After a long turn of the event loop the answers lie in the sockets: they are read before anybody is told.
  timer = startTimer(readFirst, milliseconds)
}

function readFirst(): void {
  afterInput(tellWhoIsDue)
}

function tellWhoIsDue(): void {
  armedFor = Number.POSITIVE_INFINITY
  timer = undefined
  const now = nowMs()
  let due: Deadline[] | undefined
  for (let index = 0; index < watched.length; index++) {
    const deadline = watched[index]
    if (deadline.dueAt > now) continue
    due ??= []
    due.push(deadline)
  }
  if (due !== undefined) tell(due)
  let earliest = Number.POSITIVE_INFINITY
  for (let index = 0; index < watched.length; index++) {
    const { dueAt } = watched[index]
    if (dueAt < earliest) earliest = dueAt
  }
  if (earliest < armedFor) arm(earliest)
}

/** One that is told may put off, or end, another that is due. */
function tell(due: readonly Deadline[]): void {
  for (const deadline of due) {
    unwatch(deadline)
    deadline.place = aboutToBeTold
  }
  for (const deadline of due) {
    if (deadline.place !== aboutToBeTold) continue
    deadline.place = notWatched
    deadline.onDue()
  }
}

/** How slow a body may be. */
export interface BodyPaceLimits {
  /** Longest silence, in milliseconds. */
  readonly silenceMs: number
  /** The least rate; what comes more slowly counts as silence more and more. */
  readonly minBytesPerSecond: number
}

/**
 * The time until which the next bytes have to be there, after `bytes` more came: each byte is worth its time at the
 * least rate, and no more than what has passed.
 */
export function nextBytesDueAt(dueAt: number, bytes: number, now: number, limits: BodyPaceLimits): number {
  const { silenceMs, minBytesPerSecond } = limits
  const worthMs = (bytes / minBytesPerSecond) * 1000
  return Math.min(now, dueAt - silenceMs + worthMs) + silenceMs
}
