import { afterInput, nowMs } from '@spillway/core'

/**
 * Lets the event loop breathe. All copies of this process share one clock, so that a hundred calls in flight together
 * hold the loop no longer than one alone:
 *
 *   mayWork() ── yes ──▶ a slice ──▶ mayWork() ── … ── no: half a millisecond is over ──▶ await nextTurn()
 *       ▲                                                                                     │
 *       └──────────── setImmediate: the loop has polled for I/O, a new turn begins ◀──────────┘
 *
 * Whoever gets nothing in a turn goes first in the next, so that a small call does not wait for the end of a large one.
 * Small calls pay for one `setImmediate` per turn, and wait only when together they would hold the loop.
 */

/** Longest stretch of work in one turn. A slice more may follow: its length bounds the rest. */
const maxStretchMs = 0.5

let isRunning = false
let hasWorked = false
let startedAtMs = 0
let missedOut: (() => void)[] = []
let hadTheirShare: (() => void)[] = []

/** Whether a slice may be done now. True at least once in every turn: ask directly before each slice. */
export function mayWork(): boolean {
  if (!isRunning) begin()
  if (hasWorked) return nowMs() - startedAtMs <= maxStretchMs
  hasWorked = true
  return true
}

/**
 * Resolves in the next turn, after the loop has polled for I/O; ask `mayWork` again then. `again`: this caller waited
 * for the turn that now ends, and got nothing.
 */
export function nextTurn(again: boolean): Promise<void> {
  if (!isRunning) begin()
  return new Promise((resolve) => {
    if (again) missedOut.push(resolve)
    else hadTheirShare.push(resolve)
  })
}

function begin(): void {
  isRunning = true
  hasWorked = false
  startedAtMs = nowMs()
  afterInput(end)
}

function end(): void {
  isRunning = false
  if (missedOut.length === 0 && hadTheirShare.length === 0) return
  const waiting = missedOut.concat(hadTheirShare)
  missedOut = []
  hadTheirShare = []
  begin()
  for (const resolve of waiting) resolve()
}
