import { afterInput } from '@spillway/core'

/** A queue of claims, asked when the process is about to end. */
interface Claims {
  readonly onDeadlock: () => void
}

/** Node's process, where there is one. */
interface Host {
  readonly process?: {
    on?(event: 'beforeExit', listener: () => void): unknown
    off?(event: 'beforeExit', listener: () => void): unknown
  }
}

/** Queues in which somebody waits. */
const waiting = new Set<Claims>()

/**
 * Tasks that pin crosswise wait for each other, and no timer or I/O of theirs keeps the process alive: it would end with status
 * 0 and without a word. So while somebody waits we listen for that moment, when nothing can release a pin any more.
 */
export function noteWaiting(claims: Claims, waits: boolean): void {
  const { process } = globalThis as Host
  if (waits) {
    if (waiting.size === 0) process?.on?.('beforeExit', checkAll)
    waiting.add(claims)
    return
  }
  waiting.delete(claims)
  if (waiting.size === 0) process?.off?.('beforeExit', checkAll)
}

function checkAll(): void {
  for (const claims of [...waiting]) claims.onDeadlock()
  // Node asks once more only when something has run since: whoever was refused may go on, and wait again.
  afterInput(() => {})
}
