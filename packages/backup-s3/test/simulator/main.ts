/**
 * Runs histories of owners until one breaks a rule:
 *
 *   node packages/backup-s3/test/simulator/main.ts --histories 20000 --seed 1 [--orders 1] [--build DIRECTORY] [--replay SEED]
 *
 * `--orders N`: also every order of the short histories that differs from the usual one at up to N points.
 * `--build`: the built package of another checkout. `--replay`: one history of that seed, with what happened in it.
 */
import { parseArgs } from 'node:util'
import { History, type Scheduler, type Script, Violation } from './history.ts'
import { loadCopies } from './loading.ts'
import { randomHistory, shortHistories } from './scripts.ts'
import { installVirtualHost, seededRandom } from './virtual-host.ts'

const { values } = parseArgs({
  options: {
    histories: { type: 'string', default: '2000' },
    seed: { type: 'string', default: '1' },
    orders: { type: 'string', default: '0' },
    build: { type: 'string' },
    replay: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
  },
})

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

const realNow = performance.now.bind(performance)
// Errors are looked at and not read here: their stacks cost more than the rest.
Error.stackTraceLimit = 0
installVirtualHost()
process.removeAllListeners('warning')
const classes = await loadCopies(4, values.build)
// What is thrown by what nobody waits for must not end the run; the oracle sees what comes of it.
process.on('unhandledRejection', () => {})

/** Mostly what happens by itself; sometimes another order, and sometimes a request that is held up or lost. */
function randomScheduler(seed: number): Scheduler {
  const random = seededRandom(seed)
  const reorders = random() < 0.7 ? random() : 0
  const faults = random() < 0.7 ? random() * 0.12 : 0
  return {
    random,
    choose: (count) => (count > 1 && random() < reorders ? Math.floor(random() * count) : 0),
    fate: () => {
      if (random() >= faults) return 'through'
      const chance = random()
      return chance < 0.45 ? 'held' : chance < 0.6 ? 'lost before' : chance < 0.9 ? 'lost after' : 'twice'
    },
  }
}

/** What happens by itself, but for these points. */
class OrderedScheduler implements Scheduler {
  readonly random = seededRandom(7)
  /** How many ways there were at each point. */
  readonly ways: number[] = []
  readonly #deviations: ReadonlyMap<number, number>

  constructor(deviations: ReadonlyMap<number, number>) {
    this.#deviations = deviations
  }

  choose(count: number): number {
    return this.#next(count)
  }

  fate(): ReturnType<Scheduler['fate']> {
    return (['through', 'held', 'lost after', 'lost before'] as const)[this.#next(4)]!
  }

  #next(count: number): number {
    if (count < 2) return 0
    const way = this.#deviations.get(this.ways.length) ?? 0
    this.ways.push(count)
    return Math.min(way, count - 1)
  }
}

let run = 0
let violations = 0
let requests = 0
const startedAt = realNow()

async function tryHistory(scripts: readonly Script[], scheduler: Scheduler, name: string): Promise<boolean> {
  const used = [...classes.slice(0, scripts.length), classes[3]!]
  const history = new History(used, scripts, scheduler)
  history.isVerbose = values.replay !== undefined
  run++
  try {
    await history.run()
    return true
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    violations++
    say(`VIOLATION in ${name}: ${error.message}`)
    say(
      scripts
        .map(({ name: actor, steps }) => `  ${actor}: ${steps.map((step) => step.kind).join(' ')}`)
        .join('\n'),
    )
    if (values.replay !== undefined) say(history.log.join('\n'))
    return values['keep-going']
  } finally {
    requests += history.service.served
    if (values.replay !== undefined && violations === 0) say(history.log.join('\n'))
  }
}

/** Every order of a short history that differs at up to `depth` points from `from` on. */
async function tryOrders(
  index: number,
  deviations: ReadonlyMap<number, number>,
  from: number,
  depth: number,
): Promise<boolean> {
  const scheduler = new OrderedScheduler(deviations)
  const name = `short history ${index}, ${JSON.stringify([...deviations])}`
  if (!(await tryHistory(shortHistories[index]!, scheduler, name))) return false
  if (depth === 0) return true
  const ways = scheduler.ways.slice()
  for (let point = from; point < ways.length; point++) {
    for (let way = 1; way < ways[point]!; way++) {
      const more = new Map(deviations).set(point, way)
      if (!(await tryOrders(index, more, point + 1, depth - 1))) return false
    }
  }
  return true
}

function tell(): void {
  const seconds = (realNow() - startedAt) / 1000
  const rate = Math.round((run / seconds) * 60)
  say(
    `${run} histories, ${requests} requests, ${violations} violations, seed ${values.seed}, ${seconds.toFixed(1)} s, ${rate} a minute`,
  )
}

async function main(): Promise<boolean> {
  const seed = Number(values.seed)
  if (values.replay !== undefined) {
    const scheduler = randomScheduler(Number(values.replay))
    return tryHistory(randomHistory(scheduler.random), scheduler, `seed ${values.replay}`)
  }
  const orders = Number(values.orders)
  if (orders > 0) {
    for (const index of shortHistories.keys())
      if (!(await tryOrders(index, new Map(), 0, orders))) return false
  }
  for (let index = 0; index < Number(values.histories); index++) {
    const own = seed * 10_000_000 + index
    const scheduler = randomScheduler(own)
    if (!(await tryHistory(randomHistory(scheduler.random), scheduler, `seed ${own}`))) return false
  }
  return true
}

await main()
tell()
process.exit(violations === 0 ? 0 : 1)
