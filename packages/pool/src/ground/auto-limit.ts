import {
  type HostTimer,
  type SystemMemory,
  SystemMemoryReader,
  startInterval,
  stopInterval,
} from '@spillway/core'
import { nodeModule } from '../providers/resizable.ts'
import { warn } from './trace.ts'

/** What the limit follows: the machine and every control group above this process. */
export interface MemoryReading extends Pick<SystemMemory, 'pressurePercent'> {
  /** Memory that this process may use at most: the least of the machine's and its groups'. */
  readonly totalBytes: number
  /** How much could be had now at the tightest of them: clean cached files count, memfds and tmpfs do not. */
  readonly availableBytes: number
  /** Who has so little, for people. */
  readonly tightest: string
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
  const { totalBytes, availableBytes, pressurePercent = 0 } = reading
  if (limitBytes > highest) return highest
  const scarce = availableBytes < totalBytes / 20
  if (scarce || pressurePercent > highPressurePercent)
    return Math.max(Math.floor(highest / 8), Math.floor(limitBytes * 0.9))
  const plenty = availableBytes > totalBytes / 10 && pressurePercent < lowPressurePercent
  return plenty ? Math.min(highest, Math.ceil(limitBytes * 1.05)) : limitBytes
}

const highPressurePercent = 10
const lowPressurePercent = 1

/** Reads the machine, the control groups of both versions and pressure stall information. */
export function systemReader(): MemoryReader {
  const files = nodeModule('node:fs') as
    | { readFileSync(path: string, encoding: 'latin1'): string }
    | undefined
  const machine = nodeModule('node:os') as { totalmem(): number; freemem(): number } | undefined
  if (files === undefined || machine === undefined) {
    throw new RangeError(`limitBytes 'auto' needs Node; give a number of bytes`)
  }
  const reader = new SystemMemoryReader((path) => {
    try {
      return files.readFileSync(path, 'latin1')
    } catch {
      return undefined
    }
  })
  return () => memoryReading(reader.read(), machine.totalmem(), machine.freemem())
}

/** What was read, where the system says nothing the machine's own numbers. */
export function memoryReading(memory: SystemMemory, machineBytes: number, freeBytes: number): MemoryReading {
  const tightest = memory.levels.find(({ availableBytes }) => availableBytes === memory.availableBytes)
  const isGroup = tightest !== undefined && tightest.name !== 'machine'
  return {
    totalBytes: Math.min(memory.limitBytes, machineBytes),
    availableBytes: Math.min(memory.availableBytes, memory.levels.length === 0 ? freeBytes : machineBytes),
    pressurePercent: memory.pressurePercent,
    tightest: isGroup ? `the control group ${tightest.name}` : 'the machine',
  }
}

/** Reads a part of the system's memory: that of one thread or process among several. */
export function fractionOf(read: MemoryReader, fraction: number): MemoryReader {
  if (fraction === 1) return read
  return () => {
    const reading = read()
    const { totalBytes, availableBytes } = reading
    return { ...reading, totalBytes: totalBytes * fraction, availableBytes: availableBytes * fraction }
  }
}

interface AutoLimitOptions {
  /** What the limit never sinks below. */
  readonly leastBytes: () => number
  readonly setLimit: (limitBytes: number, signal: AbortSignal) => Promise<void>
  /** What it is called in warnings. */
  readonly title: string
}

/** Follows the system: asks once a second, without keeping the process alive. */
export class AutoLimit {
  readonly #read: MemoryReader
  readonly #options: AutoLimitOptions
  #limitBytes: number
  #timer: HostTimer | undefined
  #changing = false
  #isAtLeast = false

  constructor(read: MemoryReader, limitBytes: number, options: AutoLimitOptions) {
    this.#read = read
    this.#limitBytes = limitBytes
    this.#options = options
  }

  start(): void {
    this.stop()
    this.#timer = startInterval(() => void this.step(), intervalMs)
    this.#timer.unref?.()
  }

  stop(): void {
    stopInterval(this.#timer)
    this.#timer = undefined
  }

  /** Asks once, and changes the limit if it must. A limit that cannot sink now (all is pinned) is tried again next time. */
  async step(): Promise<void> {
    if (this.#changing) return
    const least = this.#options.leastBytes()
    const reading = this.#read()
    const next = nextLimit(this.#limitBytes, reading)
    this.#tell(next < least, least, reading)
    const wanted = Math.max(least, next)
    if (wanted === this.#limitBytes) return
    this.#changing = true
    try {
      await this.#options.setLimit(wanted, AbortSignal.timeout(intervalMs))
      this.#limitBytes = wanted
    } catch {
      // Pinned memory or a failing backup hold it up; whoever waits for memory is told by the pool.
    } finally {
      this.#changing = false
    }
  }

  #tell(isAtLeast: boolean, leastBytes: number, { tightest, availableBytes }: MemoryReading): void {
    if (isAtLeast && !this.#isAtLeast) {
      const message = `${this.#options.title}: ${tightest} is short of memory (${availableBytes} bytes are left), and the limit cannot sink below ${leastBytes} bytes`
      warn('SPILLWAY_LIMIT_AT_MINIMUM', message, 'That is the sum of minBytes of its pools, or one chunk.')
    }
    this.#isAtLeast = isAtLeast
  }
}

const intervalMs = 1000
