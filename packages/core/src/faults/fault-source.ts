import type { ErrorCode } from '../errors.ts'
import type { Fault, FaultMethod, FaultPlan, FaultStop, RandomFaults } from './plan.ts'
import { seededRandom } from './random.ts'

/** What a single call meets. */
export interface DrawnFault {
  /** The how many-th call of its method this is, from 1. */
  readonly call: number
  readonly code: ErrorCode | undefined
  readonly stop: FaultStop
  readonly delayMs: number
}

interface ArmedFault {
  readonly fault: Fault
  used: number
}

const randomMethods: readonly FaultMethod[] = ['backupPages', 'copyPages', 'drop']
const randomCodes: readonly ErrorCode[] = ['EIO', 'ENOSPC', 'ENOMEM', 'EAGAIN', 'ETIMEDOUT', 'EINTR']

/** Decides, in the order of the calls, what each of them meets. */
export class FaultSource {
  readonly seed: number
  readonly #random: () => number
  readonly #counts = new Map<FaultMethod, number>()
  #armed: ArmedFault[]
  #randomFaults: RandomFaults | undefined

  constructor(plan: FaultPlan) {
    this.seed = plan.seed ?? Math.floor(Math.random() * 2 ** 32)
    this.#random = seededRandom(this.seed)
    this.#armed = (plan.faults ?? []).map((fault) => ({ fault, used: 0 }))
    this.#randomFaults = plan.random
  }

  /** Calls of a method so far. */
  countOf(method: FaultMethod): number {
    return this.#counts.get(method) ?? 0
  }

  /** Adds faults behind those that are there. */
  add(faults: readonly Fault[]): void {
    for (const fault of faults) this.#armed.push({ fault, used: 0 })
  }

  /** Nothing goes wrong any more. */
  clear(): void {
    this.#armed = []
    this.#randomFaults = undefined
  }

  /** Counts one more call of a method that moves `pages` pages (0 where it moves none). */
  draw(method: FaultMethod, pages: number): DrawnFault | undefined {
    const call = this.countOf(method) + 1
    this.#counts.set(method, call)
    const armed = this.#armed.find(({ fault, used }) => applies(fault, used, method, call))
    if (armed !== undefined) {
      armed.used++
      const { code, stop = 0, delayMs = 0 } = armed.fault
      return { call, code, stop, delayMs }
    }
    return this.#drawRandom(method, pages, call)
  }

  #drawRandom(method: FaultMethod, pages: number, call: number): DrawnFault | undefined {
    if (this.#randomFaults === undefined) return undefined
    const { rate, methods = randomMethods, codes = randomCodes, maxDelayMs = 0 } = this.#randomFaults
    if (!methods.includes(method)) return undefined
    // Every call draws four numbers, so that one fault more or less does not change those after it.
    const [chance, place, kind, wait] = [this.#random(), this.#random(), this.#random(), this.#random()]
    const code = chance < rate ? codes[Math.floor(kind * codes.length)] : undefined
    return { call, code, stop: Math.floor(place * pages), delayMs: wait * maxDelayMs }
  }
}

function applies(fault: Fault, used: number, method: FaultMethod, call: number): boolean {
  if (fault.method !== method || used >= (fault.times ?? Number.POSITIVE_INFINITY)) return false
  if (fault.calls !== undefined && !fault.calls.includes(call)) return false
  return call % (fault.every ?? 1) === 0
}
