/** In which order things happen, and what goes wrong. */
import { leaseMs, type Scheduler } from './history.ts'
import type { Fate, Interruption } from './simulated-service.ts'
import { type Random, seededRandom } from './virtual-host.ts'

/** Longer than a lease and the second that others wait beyond it. */
const outlastsLeaseMs = leaseMs + 2000

/** Mostly what happens by itself; sometimes another order, a request that is held, lost or refused, or a process that stands still or dies. */
export function randomScheduler(seed: number): Scheduler {
  const random = seededRandom(seed)
  const reorders = random() < 0.7 ? random() : 0
  const faults = random() < 0.7 ? random() * 0.12 : 0
  const interruptions = random() < 0.4 ? random() * 0.06 : 0
  const any = (count: number) => (random() < reorders ? Math.floor(random() * count) : 0)
  return {
    random,
    earlyMs: seededRandom(seed + 1)() < 0.5 ? leaseMs / 10 : 0,
    process: any,
    event: any,
    fate: () => {
      if (random() >= faults) return 'through'
      const chance = random()
      if (chance < 0.15) return chance < 0.08 ? 'refused' : 'failed'
      return chance < 0.45 ? 'held' : chance < 0.6 ? 'lost before' : chance < 0.9 ? 'lost after' : 'twice'
    },
    interruption: () => {
      if (random() >= interruptions) return 'none'
      if (random() < 0.15) return 'dies'
      return random() < 0.5 ? 'stops' : 'sleeps'
    },
    pauseMs: () => leaseMs * (0.2 + 3 * random()),
  }
}

/** Where an order departs from the usual one: at which of its decisions, and how. */
export type Departures = ReadonlyMap<number, number>

/** A decision that was taken. */
interface Decision {
  /** How many ways there were. */
  readonly ways: number
  /** Whether the others are faults, and not other orders. */
  readonly isFault: boolean
}

const fates: readonly Fate[] = ['through', 'held', 'lost after', 'lost before']
const interruptions: readonly Interruption[] = ['none', 'stops', 'sleeps']

/** One process goes on until it has to wait, and nothing goes wrong, but for some departures. */
export class OrderedScheduler implements Scheduler {
  readonly random: Random = seededRandom(7)
  readonly earlyMs = 0
  readonly decisions: Decision[] = []
  readonly #departures: Departures

  constructor(departures: Departures) {
    this.#departures = departures
  }

  process(count: number): number {
    return this.#decide(count, false)
  }

  /** What happens to one process comes in its order; requests that are held change that. */
  event(): number {
    return 0
  }

  fate(): Fate {
    return fates[this.#decide(fates.length, true)]!
  }

  interruption(): Interruption {
    return interruptions[this.#decide(interruptions.length, true)]!
  }

  pauseMs(): number {
    return outlastsLeaseMs
  }

  #decide(ways: number, isFault: boolean): number {
    const way = this.#departures.get(this.decisions.length) ?? 0
    this.decisions.push({ ways, isFault })
    return Math.min(way, ways - 1)
  }
}

/** How many departures of each kind an order may have. */
export interface Bounds {
  readonly switches: number
  readonly faults: number
}

/** All orders of a history within bounds, each once; `run` says whether to go on. */
export async function everyOrder(
  bounds: Bounds,
  run: (scheduler: OrderedScheduler, departures: Departures) => Promise<boolean>,
  departures: Departures = new Map(),
  from = 0,
): Promise<boolean> {
  const scheduler = new OrderedScheduler(departures)
  if (!(await run(scheduler, departures))) return false
  const { decisions } = scheduler
  for (let point = from; point < decisions.length; point++) {
    const { ways, isFault } = decisions[point]!
    const left = {
      switches: bounds.switches - (isFault ? 0 : 1),
      faults: bounds.faults - (isFault ? 1 : 0),
    }
    if (left.switches < 0 || left.faults < 0) continue
    for (let way = 1; way < ways; way++) {
      const more = new Map(departures).set(point, way)
      if (!(await everyOrder(left, run, more, point + 1))) return false
    }
  }
  return true
}
