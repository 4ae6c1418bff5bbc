import { readFileSync } from 'node:fs'
import { allocate, createMemfd, punchHole } from './files.ts'
import { libcFor, whyUnavailable } from './libc.ts'
import { Mapping, systemPageBytes } from './mapping.ts'
import { probeQueues } from './ring-queues.ts'

/** What this platform offers. */
export interface NativeAvailability {
  /** Whether memory can be mapped here: the rest follows from that. */
  readonly available: boolean
  /** Why not. */
  readonly reason?: string
  readonly memfd: boolean
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

/** What works here, tried once on the real kernel and remembered. Never throws. */
export function available(): NativeAvailability {
  probed ??= Object.freeze(probe())
  return probed
}

function probe(): NativeAvailability {
  const nothing = {
    available: false,
    memfd: false,
    mmap: false,
    hugePages: false,
    punchHole: false,
    ioUring: false,
  }
  const reason = whyUnavailable()
  if (reason !== undefined) return { ...nothing, reason, ioUringReason: reason }
  const mmap = attempt(() => Mapping.anonymous(systemPageBytes()).close())
  if (mmap !== undefined) return { ...nothing, reason: mmap, ioUringReason: mmap }
  const memfd = attempt(() => withMemfd(() => {}))
  const hole = attempt(() =>
    withMemfd((fd) => {
      allocate(fd, 0, systemPageBytes())
      punchHole(fd, 0, systemPageBytes())
    }),
  )
  const ioUringReason = attempt(probeQueues)
  return {
    available: true,
    mmap: true,
    memfd: memfd === undefined,
    punchHole: hole === undefined,
    hugePages: hugePagesEnabled(),
    ioUring: ioUringReason === undefined,
    ...(ioUringReason === undefined ? {} : { ioUringReason }),
  }
}

function withMemfd(work: (fd: number) => void): void {
  const fd = createMemfd('spillway-probe')
  try {
    work(fd)
  } finally {
    libcFor('close').close(fd)
  }
}

/** What went wrong in `work`, or undefined. */
function attempt(work: () => void): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

function hugePagesEnabled(): boolean {
  try {
    return !readFileSync('/sys/kernel/mm/transparent_hugepage/enabled', 'latin1').includes('[never]')
  } catch {
    return false
  }
}
