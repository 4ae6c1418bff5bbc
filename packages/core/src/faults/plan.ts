import { type ErrorCode, errorCodes, isErrorCode } from '../errors.ts'
import { assertKnownOptions } from '../validation.ts'

export const faultMethods = [
  'backupPages',
  'copyPages',
  'drop',
  'bytesAvailable',
  'reserve',
  'save',
  'load',
  'remove',
  'close',
] as const

export type FaultMethod = (typeof faultMethods)[number]

/**
 * Where a call that moves pages stops: after so many pages, or
 *
 * - `'half'`            after half of its pages, rounded up: one page is done whole (T44)
 * - `'first of chunk'`  after the first page of the first span that has more than one (T44, T11)
 * - `'half of chunk'`   after half of that span, rounded up
 */
export type FaultStop = number | 'half' | 'first of chunk' | 'half of chunk'

/** One thing that goes wrong. */
export interface Fault {
  readonly method: FaultMethod
  /** Which calls of that method, counted from 1. Default: all. */
  readonly calls?: readonly number[] | undefined
  /** Every so many calls: 2 is the second, fourth, … @default 1 */
  readonly every?: number | undefined
  /** How often at most. Default: without end. */
  readonly times?: number | undefined
  /** How the call fails. Without it only the delay happens. */
  readonly code?: ErrorCode | undefined
  /** For `backupPages` and `copyPages`. @default 0 */
  readonly stop?: FaultStop | undefined
  /** Waits before the call. @default 0 */
  readonly delayMs?: number | undefined
}

/** Faults drawn from the seed: the same calls in the same order meet the same faults. */
export interface RandomFaults {
  /** Chance of a fault for each call, from 0 to 1. */
  readonly rate: number
  /** @default `backupPages`, `copyPages` and `drop` */
  readonly methods?: readonly FaultMethod[] | undefined
  /** @default `EIO`, `ENOSPC`, `ENOMEM`, `EAGAIN`, `ETIMEDOUT` and `EINTR` */
  readonly codes?: readonly ErrorCode[] | undefined
  /** Longest delay; each call draws one up to it. @default 0 */
  readonly maxDelayMs?: number | undefined
}

export interface FaultPlan {
  /** Replays a run. Default: random; `FaultyBackup.seed` tells which. */
  readonly seed?: number | undefined
  /** The first that applies to a call is used. */
  readonly faults?: readonly Fault[] | undefined
  /** For calls that no listed fault applies to. */
  readonly random?: RandomFaults | undefined
  /** How to wait. Default: a real timer. */
  readonly wait?: ((delayMs: number) => Promise<void>) | undefined
  /** Calls to remember; older ones are forgotten. @default 10000 */
  readonly maxRecordedCalls?: number | undefined
}

/**
 * The kernel's own fault injection (T44): every backup stops half way, and every second copy is interrupted before it
 * begins, where the caller can be interrupted: with a signal.
 */
export const kernelFaults: FaultPlan = Object.freeze({
  faults: [
    { method: 'backupPages', stop: 'half', code: 'ENOMEM' },
    { method: 'copyPages', every: 2, stop: 0, code: 'EINTR' },
  ],
} as const)

const stops: readonly unknown[] = ['half', 'first of chunk', 'half of chunk']

export function assertPlan(plan: FaultPlan): void {
  assertKnownOptions(plan, ['seed', 'faults', 'random', 'wait', 'maxRecordedCalls'], 'faultyBackup')
  if (plan.seed !== undefined) assertCount(plan.seed, 'seed', 0)
  if (plan.maxRecordedCalls !== undefined) assertCount(plan.maxRecordedCalls, 'maxRecordedCalls', 0)
  for (const fault of plan.faults ?? []) assertFault(fault)
  if (plan.random === undefined) return
  const { rate, methods = [], codes = [], maxDelayMs = 0 } = plan.random
  assertKnownOptions(plan.random, ['rate', 'methods', 'codes', 'maxDelayMs'], 'random')
  if (!(rate >= 0 && rate <= 1)) throw new RangeError(`rate is ${rate}; it must be from 0 to 1`)
  for (const method of methods) assertMethod(method)
  for (const code of codes) assertCode(code)
  assertDelay(maxDelayMs, 'maxDelayMs')
}

export function assertFault(fault: Fault): void {
  assertKnownOptions(fault, ['method', 'calls', 'every', 'times', 'code', 'stop', 'delayMs'], 'a fault')
  assertMethod(fault.method)
  for (const call of fault.calls ?? []) assertCount(call, 'calls', 1)
  if (fault.every !== undefined) assertCount(fault.every, 'every', 1)
  if (fault.times !== undefined) assertCount(fault.times, 'times', 1)
  if (fault.code !== undefined) assertCode(fault.code)
  if (fault.stop !== undefined && !stops.includes(fault.stop)) assertCount(fault.stop as number, 'stop', 0)
  assertDelay(fault.delayMs ?? 0, 'delayMs')
}

function assertMethod(method: FaultMethod): void {
  if (!faultMethods.includes(method)) {
    throw new TypeError(`no faults for the method ${method}; it must be one of ${faultMethods.join(', ')}`)
  }
}

function assertCode(code: unknown): void {
  if (!isErrorCode(code))
    throw new TypeError(`${code} is no error code; it must be one of ${errorCodes.join(', ')}`)
}

function assertCount(value: number, name: string, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(`${name} is ${value}; it must be an integer of ${least} or more`)
  }
}

function assertDelay(value: number, name: string): void {
  if (!(value >= 0 && value <= 2 ** 31 - 1)) throw new RangeError(`${name} is ${value}; it must be 0 or more`)
}
