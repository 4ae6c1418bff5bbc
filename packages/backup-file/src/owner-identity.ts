import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'

/** Who holds a named file: enough to tell a live owner from a dead one whose process id was given away again. */
export interface OwnerIdentity {
  readonly processId: number
  /** When the process began, in the kernel's ticks; `null` where the system does not tell. */
  readonly startTicks: string | null
  readonly bootId: string | null
  readonly processNamespace: string | null
  readonly machine: string
}

/** What is known of an owner. `unknown`: it may live where we cannot look, so nothing of it is touched. */
export type OwnerState = 'live' | 'dead' | 'unknown'

export function ownIdentity(): OwnerIdentity {
  return {
    processId: process.pid,
    startTicks: startTicksOf(process.pid),
    bootId: readText('/proc/sys/kernel/random/boot_id'),
    processNamespace: readLink('/proc/self/ns/pid'),
    machine: `${hostname()} ${readText('/etc/machine-id') ?? ''}`,
  }
}

/** Whether the owner lives. Only a process of this machine, boot and process namespace can be found dead by its id. */
export function stateOf(owner: OwnerIdentity, self: OwnerIdentity = ownIdentity()): OwnerState {
  if (owner.machine !== self.machine) return 'unknown'
  if (owner.bootId !== self.bootId) return 'dead'
  if (owner.processNamespace !== self.processNamespace) return 'unknown'
  if (owner.startTicks !== null) return startTicksOf(owner.processId) === owner.startTicks ? 'live' : 'dead'
  try {
    process.kill(owner.processId, 0)
    return 'live'
  } catch (failure) {
    return (failure as { code?: string }).code === 'ESRCH' ? 'dead' : 'live'
  }
}

/** Field 22 of /proc/<pid>/stat; the name in field 2 may hold spaces and brackets, so count from its end. */
function startTicksOf(processId: number): string | null {
  const text = readText(`/proc/${processId}/stat`)
  return text?.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? null
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'latin1').trim()
  } catch {
    return null
  }
}

function readLink(path: string): string | null {
  try {
    return readlinkSync(path)
  } catch {
    return null
  }
}
