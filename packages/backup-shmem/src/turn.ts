/**
 * Lets the event loop breathe. All copies of this process share one clock, so that ten calls in flight together stop
 * as early as one alone:
 *
 *   first work of a turn ──▶ clock starts ──▶ slice, slice, slice ──▶ time is up ──▶ wait for the turn's end
 *                               │                                                        ▲
 *                               └── setImmediate: the loop has polled, the turn is over ─┘
 *
 * Small calls pay for one `setImmediate` per turn and never wait, unless they are so many that together they would
 * hold the loop.
 */

/** Longest stretch of copying in one turn. A slice more may follow: its length bounds the rest. */
const maxStretchMs = 0.5

let startedAtMs = 0
let turn: Promise<void> | undefined

/** Marks the beginning of synchronous work. */
export function enterTurn(): void {
  if (turn !== undefined) return
  startedAtMs = performance.now()
  turn = new Promise((resolve) => {
    setImmediate(() => {
      turn = undefined
      resolve()
    })
  })
}

/** Whether this turn of the event loop has worked long enough. */
export function turnIsOver(): boolean {
  return turn !== undefined && performance.now() - startedAtMs > maxStretchMs
}

/** Resolves in the next turn, after the loop has polled for I/O. */
export async function nextTurn(): Promise<void> {
  await turn
  enterTurn()
}
