import { fstatSync, readFileSync } from 'node:fs'
import { isTransient } from './errors.ts'
import { allocate, closeMemfd, createMemfd, punchHole } from './files.ts'
import { whyUnavailable } from './libc.ts'
import { Mapping, systemPageBytes } from './mapping.ts'
import { probeQueues } from './ring-queues.ts'
import { otherRuntime } from './runtime.ts'

/** What this platform offers. */
export interface NativeAvailability {
  /** Whether memory can be mapped here: the rest follows from that. */
  readonly available: boolean
  /** Why not. */
  readonly reason?: string
  readonly memfd: boolean
  /** Why not: Deno's `node:fs` does not take descriptors that native code opened. */
  readonly memfdReason?: string
  readonly mmap: boolean
  /** Whether huge pages can be asked for. */
  readonly hugePages: boolean
  /** Whether holes can be punched into a memfd; file systems differ. */
  readonly punchHole: boolean
  readonly ioUring: boolean
  /** Why not: containers often forbid it. */
  readonly ioUringReason?: string
}

let probed: NativeAvailability | undefined

/**
 * What works here, tried on the real kernel. It is remembered, unless something failed for a lack of descriptors or memory:
 * then it is tried again at the next call. Never throws.
 */
export function available(): NativeAvailability {
  if (probed !== undefined) return probed
  const trial: Trial = { mayPass: false }
  const found = Object.freeze(probe(trial))
  if (!trial.mayPass) probed = found
  return found
}

/** One round of trials: whether one of them failed for a reason that may pass. */
interface Trial {
  mayPass: boolean
}

function probe(trial: Trial): NativeAvailability {
  const nothing = {
    available: false,
    memfd: false,
    mmap: false,
    hugePages: false,
    punchHole: false,
    ioUring: false,
  }
  let reason: string | undefined
  const failure = attempt(trial, () => {
    reason = whyUnavailable()
  })
  reason ??= failure
  if (reason !== undefined) return { ...nothing, reason, ioUringReason: reason }
  const mmap = attempt(trial, () => Mapping.anonymous(systemPageBytes()).close())
  if (mmap !== undefined) return { ...nothing, reason: mmap, ioUringReason: mmap }
  const memfdReason = attempt(trial, () => withMemfd(assertUsable))
  const hole = attempt(trial, () =>
    withMemfd((fd) => {
      allocate(fd, 0, systemPageBytes())
      punchHole(fd, 0, systemPageBytes())
    }),
  )
  const ioUringReason = attempt(trial, probeQueues)
  return {
    available: true,
    mmap: true,
    memfd: memfdReason === undefined,
    ...(memfdReason === undefined ? {} : { memfdReason }),
    punchHole: hole === undefined,
    hugePages: hugePagesEnabled(trial),
    ioUring: ioUringReason === undefined,
    ...(ioUringReason === undefined ? {} : { ioUringReason }),
  }
}

function withMemfd(work: (fd: number) => void): void {
  const fd = createMemfd('spillway-probe')
  try {
    work(fd)
  } finally {
    closeMemfd(fd)
  }
}

/** A descriptor is of use where `node:fs` takes it. */
function assertUsable(fd: number): void {
  try {
    fstatSync(fd)
  } catch (failure) {
    const who = otherRuntime() ?? 'node:fs'
    throw new Error(`${who} does not take the descriptor of a memfd: ${(failure as Error).message}`)
  }
}

/** What went wrong in `work`, or undefined. */
function attempt(trial: Trial, work: () => void): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    if (isTransient(error)) trial.mayPass = true
    return error instanceof Error ? error.message : String(error)
  }
}

function hugePagesEnabled(trial: Trial): boolean {
  let setting = '[never]'
  attempt(trial, () => {
    setting = readFileSync('/sys/kernel/mm/transparent_hugepage/enabled', 'latin1')
  })
  return !setting.includes('[never]')
}
