/**
 * Runs histories of owners until one breaks a rule:
 *
 *   node packages/backup-s3/test/simulator/main.ts --histories 20000 --seed 1 [--switches 2 --faults 1] [--seconds 240]
 *     [--from 0] [--short] [--build DIRECTORY] [--replay SEED]
 *
 * `--switches`, `--faults`: every order of the short histories in which a process is interrupted by another at up to so
 *   many points where it could have gone on, with up to so many faults. `--only N`: of one of them.
 * `--wide`: random ones of up to four actors, with aborts, clocks that are set, objects that cannot be deleted for a while, and
 *   services that tell no times. Of the clocks of service and machine only one is set back in a history.
 * `--histories`: random ones, of which `--short` takes the short ones in random orders; from number `--from` of the seed.
 * `--seconds`: ends after that time. `--build`: the built package of another checkout. `--replay`: one history of that
 *   seed, with what happened in it.
 */
import { parseArgs } from 'node:util'
import { History, leaseMs, type Scheduler, type Script } from './history.ts'
import { loadCopies } from './loading.ts'
import { Violation } from './oracle.ts'
import { everyOrder, randomScheduler } from './schedulers.ts'
import { randomHistory, shortHistories, wideHistory } from './scripts.ts'
import type { Traits } from './simulated-service.ts'
import { installVirtualHost } from './virtual-host.ts'

const { values } = parseArgs({
  options: {
    histories: { type: 'string', default: '2000' },
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '0' },
    short: { type: 'boolean', default: false },
    wide: { type: 'boolean', default: false },
    switches: { type: 'string' },
    faults: { type: 'string', default: '0' },
    only: { type: 'string' },
    seconds: { type: 'string' },
    build: { type: 'string' },
    replay: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
  },
})

/** Those that histories with `--wide` meet in turn. */
const services: readonly Traits[] = [
  {},
  { hasDate: false, tellsTime: false, leaseMs: 4 * leaseMs },
  { isFine: true },
  { keysPerListing: 2 },
  { tellsTime: false, leaseMs: 4 * leaseMs },
]

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

const realNow = performance.now.bind(performance)
// Errors are looked at and not read here: their stacks cost more than the rest.
Error.stackTraceLimit = 0
installVirtualHost()
process.removeAllListeners('warning')
const classes = await loadCopies(5, values.build)
// What is thrown by what nobody waits for must not end the run; the oracle sees what comes of it.
process.on('unhandledRejection', () => {})

const seed = Number(values.seed)
const startedAt = realNow()
const cpuAtStart = process.cpuUsage()
let endsAt = startedAt + 1000 * Number(values.seconds ?? Number.POSITIVE_INFINITY)
// Ends after the history that is running, and tells how many there were.
process.once('SIGTERM', () => {
  endsAt = 0
})
let run = 0
let violations = 0
let requests = 0

/** Whether to go on. */
async function tryHistory(
  scripts: readonly Script[],
  scheduler: Scheduler,
  name: string,
  traits: Traits = {},
): Promise<boolean> {
  const used = [...classes.slice(0, scripts.length), classes[4]!]
  const history = new History(used, scripts, scheduler)
  history.service.become(traits)
  history.leaseMs = traits.leaseMs ?? leaseMs
  history.isVerbose = values.replay !== undefined
  run++
  try {
    await history.run()
    return realNow() < endsAt
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    violations++
    say(`VIOLATION in ${name}, history ${run}: ${error.message}`)
    say(
      scripts
        .map(({ name: actor, steps }) => `  ${actor}: ${steps.map(({ kind }) => kind).join(' ')}`)
        .join('\n'),
    )
    return values['keep-going'] && realNow() < endsAt
  } finally {
    requests += history.service.served
    if (values.replay !== undefined) say(history.log.join('\n'))
  }
}

function tell(): void {
  const seconds = (realNow() - startedAt) / 1000
  const { user, system } = process.cpuUsage(cpuAtStart)
  const rate = Math.round((run / (user + system)) * 60e6)
  say(
    `${run} histories, ${requests} requests, ${violations} violations, seed ${seed}, ${seconds.toFixed(1)} s, ${rate} a minute of one core`,
  )
}

async function tryEveryOrder(): Promise<boolean> {
  const bounds = { switches: Number(values.switches), faults: Number(values.faults) }
  for (const [index, scripts] of shortHistories.entries()) {
    if (values.only !== undefined && index !== Number(values.only)) continue
    const before = run
    const goesOn = await everyOrder(bounds, (scheduler, departures) =>
      tryHistory(scripts, scheduler, `short history ${index}, ${JSON.stringify([...departures])}`),
    )
    say(`short history ${index}: ${run - before} orders`)
    if (!goesOn) return false
  }
  return true
}

/** A random history by its number. */
function tryNumber(own: number): Promise<boolean> {
  const traits = values.wide ? services[own % services.length]! : {}
  const { hasDate = true, tellsTime = true, isFine = false } = traits
  const tells = hasDate && tellsTime && !isFine
  const scheduler = randomScheduler(own)
  const { random } = scheduler
  const short = () => shortHistories[Math.floor(random() * shortHistories.length)]!
  const scripts = values.wide
    ? wideHistory(random, { tells })
    : values.short
      ? short()
      : randomHistory(random)
  return tryHistory(scripts, scheduler, `seed ${own}`, traits)
}

async function tryRandom(): Promise<boolean> {
  const from = Number(values.from)
  for (let index = from; index < from + Number(values.histories); index++) {
    if (!(await tryNumber(seed * 10_000_000 + index))) return false
  }
  return true
}

if (values.replay !== undefined) await tryNumber(Number(values.replay))
else if (values.switches === undefined || (await tryEveryOrder())) await tryRandom()
tell()
process.exit(violations === 0 ? 0 : 1)
