import { type HostTimer, startInterval, stopInterval } from '@spillway/core'
import { nodeModule } from '../providers/resizable.ts'

/** What the system says about memory; undefined where it does not say. */
export interface MemoryReading {
  /** Memory that this process may use at most: the least of the machine's and its cgroup's. */
  readonly totalBytes: number
  /** How much of that is free now. */
  readonly availableBytes: number | undefined
  /** Percent of the last 10 seconds in which some task waited for memory (PSI). */
  readonly pressurePercent: number | undefined
}

/** Reads what there is to read. Throws where there is no Node. */
export type MemoryReader = () => MemoryReading

/** The limit to begin with: half of the memory (T58). */
export function firstLimit(reading: MemoryReading): number {
  return Math.floor(reading.totalBytes / 2)
}

/**
 * The limit to go on with. Under pressure it sinks by a tenth, down to an eighth of what it began with; without, it rises
 * by a twentieth, up to that. In between it stays, so that it does not swing.
 */
export function nextLimit(limitBytes: number, reading: MemoryReading): number {
  const highest = firstLimit(reading)
  const { totalBytes, availableBytes = totalBytes, pressurePercent = 0 } = reading
  if (limitBytes > highest) return highest
  const scarce = availableBytes < totalBytes / 20
  if (scarce || pressurePercent > highPressurePercent)
    return Math.max(Math.floor(highest / 8), Math.floor(limitBytes * 0.9))
  const plenty = availableBytes > totalBytes / 10 && pressurePercent < lowPressurePercent
  return plenty ? Math.min(highest, Math.ceil(limitBytes * 1.05)) : limitBytes
}

const highPressurePercent = 10
const lowPressurePercent = 1

/** Reads the machine, the cgroup (v2 and v1) and pressure stall information. */
export function systemReader(): MemoryReader {
  const files = nodeModule('node:fs') as { readFileSync(path: string, encoding: 'utf8'): string } | undefined
  const machine = nodeModule('node:os') as { totalmem(): number; freemem(): number } | undefined
  if (files === undefined || machine === undefined) {
    throw new RangeError(`limitBytes 'auto' needs Node; give a number of bytes`)
  }
  const read = (path: string): string | undefined => {
    try {
      return files.readFileSync(path, 'utf8')
    } catch {
      return undefined
    }
  }
  return () => readSystem(read, machine.totalmem(), machine.freemem())
}

/** The reading from the texts of the system's files; apart, so that it can be tried without that system. */
export function readSystem(
  read: (path: string) => string | undefined,
  machineBytes: number,
  freeBytes: number,
): MemoryReading {
  const membership = read('/proc/self/cgroup') ?? ''
  const group = /^0::(.*)$/m.exec(membership)?.[1]
  const oldGroup = /^\d+:memory:(.*)$/m.exec(membership)?.[1]
  let totalBytes = machineBytes
  let usedBytes: number | undefined
  for (const [directory, limitFile, usageFile] of [
    [`/sys/fs/cgroup${group ?? ''}`, 'memory.max', 'memory.current'],
    ['/sys/fs/cgroup', 'memory.max', 'memory.current'],
    [`/sys/fs/cgroup/memory${oldGroup ?? ''}`, 'memory.limit_in_bytes', 'memory.usage_in_bytes'],
  ] as const) {
    const limit = Number(read(`${directory}/${limitFile}`) ?? Number.NaN)
    if (!(limit > 0 && limit < totalBytes)) continue
    totalBytes = limit
    const usage = Number(read(`${directory}/${usageFile}`) ?? Number.NaN)
    usedBytes = Number.isFinite(usage) ? usage : undefined
  }
  const pressure = read(`/sys/fs/cgroup${group ?? ''}/memory.pressure`) ?? read('/proc/pressure/memory') ?? ''
  const percent = /^some avg10=([\d.]+)/m.exec(pressure)?.[1]
  const available =
    Number(/^MemAvailable:\s+(\d+) kB/m.exec(read('/proc/meminfo') ?? '')?.[1] ?? Number.NaN) * 1024
  const machineAvailable = Number.isFinite(available) ? available : freeBytes
  const groupAvailable = usedBytes === undefined ? machineAvailable : totalBytes - usedBytes
  return {
    totalBytes,
    availableBytes: Math.max(0, Math.min(machineAvailable, groupAvailable)),
    pressurePercent: percent === undefined ? undefined : Number(percent),
  }
}

/** Follows the system: asks once a second, without keeping the process alive. */
export class AutoLimit {
  readonly #read: MemoryReader
  readonly #setLimit: (limitBytes: number, signal: AbortSignal) => Promise<void>
  readonly #leastBytes: number
  #limitBytes: number
  #timer: HostTimer | undefined
  #changing = false

  constructor(
    read: MemoryReader,
    limitBytes: number,
    leastBytes: number,
    setLimit: (limitBytes: number, signal: AbortSignal) => Promise<void>,
  ) {
    this.#read = read
    this.#limitBytes = limitBytes
    this.#leastBytes = leastBytes
    this.#setLimit = setLimit
  }

  start(): void {
    this.#timer = startInterval(() => void this.step(), intervalMs)
    this.#timer.unref?.()
  }

  stop(): void {
    stopInterval(this.#timer)
  }

  /** Asks once, and changes the limit if it must. A limit that cannot sink now (all is pinned) is tried again next time. */
  async step(): Promise<void> {
    if (this.#changing) return
    const wanted = Math.max(this.#leastBytes, nextLimit(this.#limitBytes, this.#read()))
    if (wanted === this.#limitBytes) return
    this.#changing = true
    try {
      await this.#setLimit(wanted, AbortSignal.timeout(intervalMs))
      this.#limitBytes = wanted
    } catch {
      // Pinned memory or a failing backup hold it up; whoever waits for memory is told by the pool.
    } finally {
      this.#changing = false
    }
  }
}

const intervalMs = 1000
