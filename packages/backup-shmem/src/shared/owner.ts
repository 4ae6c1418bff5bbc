import { readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Who a shared file belongs to. A process number alone would be taken for its successor's, so its start time goes with
 * it; and numbers mean something only within one process namespace, so that goes with it too.
 */
export interface Owner {
  readonly pid: number
  /** In clock ticks since the machine started. */
  readonly startTicks: number
  /** Number of the process namespace; 0 when it could not be read. */
  readonly namespace: number
}

/** This process. */
export function currentOwner(procDirectory = '/proc'): Owner {
  return {
    pid: process.pid,
    startTicks: startTicksOf(process.pid, procDirectory) ?? 0,
    namespace: currentNamespace(procDirectory),
  }
}

/** Whether the owner is known to be gone. An owner of which nothing can be known counts as alive. */
export function isDead(owner: Owner, procDirectory = '/proc'): boolean {
  if (owner.namespace === 0 || owner.namespace !== currentNamespace(procDirectory)) return false
  const startTicks = startTicksOf(owner.pid, procDirectory)
  return startTicks === undefined || (owner.startTicks !== 0 && startTicks !== owner.startTicks)
}

/** `undefined` when there is no such process, or only its zombie. */
function startTicksOf(pid: number, procDirectory: string): number | undefined {
  let text: string
  try {
    text = readFileSync(join(procDirectory, String(pid), 'stat'), 'latin1')
  } catch (failure) {
    const { code } = failure as { code?: unknown }
    return code === 'ENOENT' || code === 'ESRCH' ? undefined : 0
  }
  // The second field is the program's name in brackets and may hold anything, brackets included.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const state = fields[0]
  if (state === 'Z' || state === 'X') return undefined
  return Number(fields[19])
}

function currentNamespace(procDirectory: string): number {
  try {
    return Number(/\[(\d+)\]/.exec(readlinkSync(join(procDirectory, 'self/ns/pid')))?.[1] ?? 0)
  } catch {
    return 0
  }
}
