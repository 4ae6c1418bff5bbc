import { afterInput } from '@spillway/core'

/** What all connections together may move before the event loop turns: about a millisecond with the checksums. */
const bytesPerTurn = 1024 * 1024

/**
 * libuv reads up to 32 times from a socket before it looks at the next, and has looked at all of them before anything
 * else gets its turn; and a socket that takes a slice at once is given the next at once. With megabytes ready on each of
 * sixteen connections that is a long time. So they take what they move from a budget; the one that overdraws it pauses,
 * and goes on when the loop has turned.
 *
 *   bytes moved ─▶ within the budget ─▶ go on
 *                    └─ beyond it ─▶ paused ─(the loop turns)─▶ budget full, all resumed
 */
let leftBytes = bytesPerTurn
let isSet = false
const paused: { resume(): void }[] = []

/** Takes bytes that were read or written. False: this side must pause; `resume` is called in the next turn. */
export function takeFromTurn(bytes: number, side: { resume(): void }): boolean {
  leftBytes -= bytes
  if (!isSet) {
    isSet = true
    afterInput(turn)
  }
  if (leftBytes > 0) return true
  paused.push(side)
  return false
}

function turn(): void {
  isSet = false
  leftBytes = bytesPerTurn
  for (const side of paused.splice(0)) side.resume()
}
