import { mayWork, onTurn } from '@spillway/core'

/**
 * Whether a side of a connection that moved so many bytes may move more in this turn of the event loop. False: it must pause, and
 * `resume` is called in a later turn.
 *
 * libuv reads up to 32 times from a socket before it looks at the next, and has looked at all of them before anything else
 * gets its turn; and a socket that takes a slice at once is given the next at once. With megabytes ready on each of sixteen
 * connections that is a long time.
 */
export function mayMoveMore(movedBytes: number, side: { resume(): void }): boolean {
  if (mayWork(movedBytes)) return true
  onTurn(movedBytes, () => side.resume())
  return false
}
