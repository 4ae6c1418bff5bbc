/**
 * A host whose time is counted and not waited for: timers, immediates, clocks and random numbers of the code under test.
 *
 * Every actor has clocks of its own. What runs, runs for one actor: whoever lets a callback of an actor run sets `current`
 * first, and everything that follows in promises until the event loop turns belongs to that actor, too.
 */
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'

export type Random = () => number

export function seededRandom(seed: number): Random {
  let state = (Math.imul(seed, 0x9e3779b1) ^ 0x85ebca6b) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

interface Timer {
  readonly id: number
  /** When it fires, by the actor's own clock. */
  at: number
  readonly callback: (...args: unknown[]) => void
  readonly args: unknown[]
  readonly everyMs: number | undefined
  isCleared: boolean
}

/** A process. It may stand still for a while: stopped, or asleep with its machine, whose clock then stands, too. */
export class Process {
  readonly name: string
  readonly timers = new Set<Timer>()
  readonly immediates: (() => void)[] = []
  isKilled = false
  /** Nothing of it counts any more; all that it asks for fails at once. */
  isBuried = false
  /** How far the clock that everybody can set is ahead of the world's, in milliseconds. It goes on while the machine sleeps. */
  wallAheadMs = 0
  /** How far its clock is behind that of the world, in milliseconds. */
  #behindMs = 0
  #stillFrom = 0
  #stillUntil = 0
  #isAsleep = false

  constructor(name: string) {
    this.name = name
  }

  /** What its clock says, in milliseconds. */
  get now(): number {
    const sleptMs = this.#isAsleep ? Math.min(world.now, this.#stillUntil) - this.#stillFrom : 0
    return world.now - this.#behindMs - sleptMs
  }

  get isStill(): boolean {
    return world.now < this.#stillUntil
  }

  /** Stops it for a while; asleep, its clock stands, too. */
  standStill(milliseconds: number, asleep: boolean): void {
    if (this.isStill) return
    this.goOn()
    this.#stillFrom = world.now
    this.#stillUntil = world.now + milliseconds
    this.#isAsleep = asleep
  }

  /** Lets it go on, when the time has come. */
  goOn(): void {
    if (this.#stillUntil === 0 || this.isStill) return
    if (this.#isAsleep) this.#behindMs += this.#stillUntil - this.#stillFrom
    this.#stillUntil = 0
    this.#isAsleep = false
  }

  /** The timer that fires first. */
  get nextTimer(): Timer | undefined {
    let first: Timer | undefined
    for (const timer of this.timers) if (first === undefined || timer.at < first.at) first = timer
    return first
  }

  /** When it does something next by itself, by the world's clock, if nothing comes in. */
  get nextAt(): number {
    if (this.isStill) return this.#stillUntil
    const timer = this.nextTimer
    return timer === undefined ? Number.POSITIVE_INFINITY : timer.at + this.#behindMs
  }
}

/** What all actors share: the time of the service, and whose turn it is. */
export const world = {
  now: 0,
  current: undefined as Process | undefined,
  random: Math.random as Random,
}

const real = { setImmediate: globalThis.setImmediate, setTimeout: globalThis.setTimeout }

/** Immediates that run in one turn of the event loop: between two of them all promises settle, and a turn costs more. */
const immediatesPerTurn = 200
const waiting: (() => void)[] = []
let immediatesLeft = 0

/** Calls back when all that follows from what has run has run. */
export function whenSettled(callback: () => void): void {
  waiting.push(callback)
  if (immediatesLeft > 0) return
  immediatesLeft = immediatesPerTurn
  for (let index = 0; index < immediatesPerTurn; index++) real.setImmediate(runNext)
}

function runNext(): void {
  immediatesLeft--
  waiting.shift()?.()
}

/** Resolves when all that follows from what has run has run. */
export function settled(): Promise<void> {
  return new Promise((resolve) => whenSettled(resolve))
}

class TimerHandle {
  readonly timer: Timer
  readonly process: Process | undefined

  constructor(timer: Timer, process: Process | undefined) {
    this.timer = timer
    this.process = process
  }

  unref(): this {
    return this
  }

  ref(): this {
    return this
  }

  hasRef(): boolean {
    return false
  }

  refresh(): this {
    this.timer.at = (this.process?.now ?? world.now) + (this.timer.everyMs ?? delayOf.get(this.timer) ?? 0)
    if (!this.timer.isCleared) this.process?.timers.add(this.timer)
    return this
  }

  close(): void {
    clear(this)
  }

  [Symbol.dispose](): void {
    clear(this)
  }

  [Symbol.toPrimitive](): number {
    return this.timer.id
  }
}

const delayOf = new WeakMap<Timer, number>()
let timerIds = 0

function start(
  callback: (...args: unknown[]) => void,
  milliseconds: number | undefined,
  args: unknown[],
  repeats: boolean,
): TimerHandle {
  const process = world.current
  // As Node.js does: what a timer cannot count fires after a millisecond.
  const isCounted = milliseconds !== undefined && milliseconds >= 1 && milliseconds <= 2 ** 31 - 1
  const delayMs = isCounted ? milliseconds : 1
  const timer: Timer = {
    id: ++timerIds,
    at: (process?.now ?? world.now) + delayMs,
    callback,
    args,
    everyMs: repeats ? delayMs : undefined,
    isCleared: false,
  }
  delayOf.set(timer, delayMs)
  process?.timers.add(timer)
  return new TimerHandle(timer, process)
}

function clear(handle: unknown): void {
  if (!(handle instanceof TimerHandle)) return
  handle.timer.isCleared = true
  handle.process?.timers.delete(handle.timer)
}

/** Fires a timer of a process. */
export function fire(process: Process, timer: Timer): void {
  process.timers.delete(timer)
  if (timer.everyMs !== undefined) {
    timer.at = process.now + timer.everyMs
    process.timers.add(timer)
  }
  world.current = process
  timer.callback(...timer.args)
}

/** Replaces what the code under test takes from its host; to be called before that is imported. */
export function installVirtualHost(): void {
  const host = globalThis as unknown as Record<string, unknown>
  host['setTimeout'] = (callback: () => void, ms?: number, ...args: unknown[]) =>
    start(callback, ms, args, false)
  host['setInterval'] = (callback: () => void, ms?: number, ...args: unknown[]) =>
    start(callback, ms, args, true)
  host['clearTimeout'] = clear
  host['clearInterval'] = clear
  host['setImmediate'] = (callback: () => void) => {
    world.current?.immediates.push(callback)
  }
  performance.now = () => world.current?.now ?? world.now
  Date.now = () => world.now + (world.current?.wallAheadMs ?? 0)
  Math.random = () => world.random()
  AbortSignal.timeout = (ms: number) => {
    const controller = new AbortController()
    start(() => controller.abort(new DOMException('timed out', 'TimeoutError')), ms, [], false)
    return controller.signal
  }
  crypto.randomBytes = ((size: number) => {
    const bytes = Buffer.alloc(size)
    for (let index = 0; index < size; index++) bytes[index] = world.random() * 256
    return bytes
  }) as typeof crypto.randomBytes
  syncBuiltinESMExports()
}
