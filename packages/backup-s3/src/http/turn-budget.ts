/** What all connections together may read before the event loop turns: about a millisecond with the checksums. */
const bytesPerTurn = 1024 * 1024

/**
 * libuv reads up to 32 times from a socket before it looks at the next, and has looked at all of them before anything
 * else gets its turn: with a megabyte ready in each of sixteen that is a long time. So connections take what they read
 * from a budget; the one that overdraws it pauses, and goes on when the loop has turned.
 *
 *   read ─▶ within the budget ─▶ read on
 *             └─ beyond it ─▶ paused ─(the loop turns)─▶ budget full, all resumed
 */
let leftBytes = bytesPerTurn
let isSet = false
const paused: { resume(): void }[] = []

/** Takes bytes that were read. False: this connection must stop; `resume` is called in the next turn. */
export function takeFromTurn(bytes: number, connection: { resume(): void }): boolean {
  leftBytes -= bytes
  if (!isSet) {
    isSet = true
    setImmediate(turn)
  }
  if (leftBytes > 0) return true
  paused.push(connection)
  return false
}

function turn(): void {
  isSet = false
  leftBytes = bytesPerTurn
  for (const connection of paused.splice(0)) connection.resume()
}
