import fc from 'fast-check'
import { Random } from '../support/random.ts'
import { operations, weights } from './operations.ts'
import { releaseAll } from './pins.ts'
import { scheduledBackup } from './scheduled-backup.ts'
import type { Tally } from './tally.ts'
import type { VirtualTime } from './virtual-time.ts'
import { memories, World, type WorldOptions } from './world.ts'

/** fast-check keeps a simplified state beside the real one; here the world is both. */
type Model = Record<string, never>

/** One call, or several at the same time, then everything is checked. */
class Step implements fc.AsyncCommand<Model, World> {
  readonly kinds: readonly string[]
  readonly seed: number

  constructor(kinds: readonly string[], seed: number) {
    this.kinds = kinds
    this.seed = seed
  }

  check(): boolean {
    return true
  }

  async run(_: Model, world: World): Promise<void> {
    const random = new Random(this.seed)
    // A pool without buffers is no place for histories.
    while (world.subjects.length < 2) await operations['allocate']!(world, random)
    world.beginStep(this.kinds.length > 1)
    world.tally.steps++
    const calls = this.kinds.map((kind) => {
      world.tally.noteCall(kind)
      // Numbers of its own for each call: what one draws does not depend on how far the others are.
      return operations[kind]!(world, new Random(random.below(2 ** 31)))
    })
    await Promise.all(calls)
    world.beginStep(false)
    await world.check()
    world.copies.endStep(
      world.pools,
      this.kinds.every((kind) => plain.has(kind)),
    )
  }

  toString(): string {
    return `${this.kinds.join(' + ')} #${this.seed}`
  }
}

/** Calls after which a page that has left memory was evicted, and counted as that. */
const plain: ReadonlySet<string> = new Set([
  'allocate',
  'write',
  'fill',
  'read',
  'readAll',
  'readable',
  'pin',
  'tryPin',
  'writePinned',
  'unpin',
  'restore',
  'faults',
  'heal',
])

const kind = fc.constantFrom(
  ...Object.entries(weights).flatMap(([name, weight]) => new Array<string>(weight).fill(name)),
)
const seed = fc.integer({ min: 0, max: 2 ** 31 - 1 })
const one = fc.tuple(kind, seed).map(([name, number]) => new Step([name], number))
const several = fc
  .tuple(fc.array(kind, { minLength: 2, maxLength: 5 }), seed)
  .map(([names, number]) => new Step(names, number))

export function worldOptions(
  memory: readonly WorldOptions['memory'][] = memories,
): fc.Arbitrary<WorldOptions> {
  return fc.record({
    memory: fc.constantFrom(...memory),
    whenFull: fc.constantFrom('wait' as const, 'fail' as const),
    split: fc.constantFrom('native' as const, 'native' as const, 'always' as const),
    maxOrder: fc.integer({ min: 0, max: 4 }),
    limitPages: fc.integer({ min: 16, max: 48 }),
    idlePages: fc.constantFrom(0, 4, 16),
    debug: fc.constantFrom(false, false, true),
    startsCopies: fc.boolean(),
    neighbour: fc.constantFrom('none' as const, 'none' as const, 'equal' as const, 'protected' as const),
  })
}

export interface ModelRunOptions {
  readonly seed: number
  readonly runs: number
  readonly stepsPerRun: number
  readonly time: VirtualTime
  readonly tally: Tally
  readonly memory?: readonly WorldOptions['memory'][]
  /** Where a failure was, as fast-check printed it. */
  readonly path?: string | undefined
  readonly replayPath?: string | undefined
}

/** Draws histories from the seed and runs them; throws with the shortest one that fails, and how to replay it. */
export async function runModel(options: ModelRunOptions): Promise<void> {
  const { stepsPerRun, time, tally, path, replayPath } = options
  const steps = fc.commands<Model, World, false>([one, one, one, several], {
    maxCommands: stepsPerRun,
    size: 'max',
    ...(replayPath === undefined ? {} : { replayPath }),
  })
  await fc.assert(
    fc.asyncProperty(worldOptions(options.memory), steps, async (world, history) => {
      time.install()
      try {
        const real = new World(world, time, tally)
        await fc.asyncModelRun(() => ({ model: {}, real }), history)
        await finish(real)
      } finally {
        time.uninstall()
      }
    }),
    {
      seed: options.seed,
      numRuns: options.runs,
      ...(path === undefined ? {} : { path }),
      endOnFailure: path !== undefined,
      interruptAfterTimeLimit: 600_000,
    },
  )
}

/**
 * Several calls at a time, with every call to a backup held up before and after it did its work until the scheduler lets it
 * go on: so the calls of the pool meet in every order. Throws like `runModel`.
 */
export async function runInterleavings(options: ModelRunOptions): Promise<void> {
  const { time, tally, path } = options
  const groups = fc.array(fc.oneof({ weight: 3, arbitrary: several }, { weight: 1, arbitrary: one }), {
    minLength: 2,
    maxLength: options.stepsPerRun,
    size: 'max',
  })
  await fc.assert(
    fc.asyncProperty(
      worldOptions(options.memory),
      groups,
      fc.scheduler(),
      async (world, steps, scheduler) => {
        time.install()
        try {
          const real = new World(world, time, tally, (backup) =>
            scheduledBackup(backup, scheduler, world.startsCopies),
          )
          for (const step of steps) await scheduler.waitFor(step.run({}, real))
          await scheduler.waitFor(finish(real))
        } finally {
          time.uninstall()
        }
      },
    ),
    {
      seed: options.seed,
      numRuns: options.runs,
      ...(path === undefined ? {} : { path }),
      endOnFailure: path !== undefined,
    },
  )
}

/**
 * The same, and then the pool is closed while the calls of a last group are under way: all of them end, and nothing is left
 * anywhere (T19, T49, T50).
 */
export async function runClosings(options: ModelRunOptions): Promise<void> {
  const { time, tally, path } = options
  const before = fc.array(several, { maxLength: options.stepsPerRun })
  const last = fc.tuple(fc.array(fc.constantFrom(...whileClosing), { minLength: 1, maxLength: 5 }), seed)
  await fc.assert(
    fc.asyncProperty(
      worldOptions(options.memory),
      before,
      last,
      fc.nat(20),
      fc.scheduler(),
      async (world, steps, [kinds, number], ticks, scheduler) => {
        time.install()
        try {
          const real = new World(world, time, tally, (backup) =>
            scheduledBackup(backup, scheduler, world.startsCopies),
          )
          for (const step of steps) await scheduler.waitFor(step.run({}, real))
          for (const provider of real.providers) provider.heal()
          real.beginStep(true)
          const random = new Random(number)
          const calls = kinds.map((kind) => operations[kind]!(real, new Random(random.below(2 ** 31))))
          for (let tick = 0; tick < ticks; tick++) await undefined
          await scheduler.waitFor(real.closeAmid(Promise.all(calls)))
        } finally {
          time.uninstall()
        }
      },
    ),
    {
      seed: options.seed,
      numRuns: options.runs,
      ...(path === undefined ? {} : { path }),
      endOnFailure: path !== undefined,
    },
  )
}

/** Calls that a close may meet; what they find then is judged by their operations. */
const whileClosing = [
  'allocate',
  'write',
  'fill',
  'copy',
  'read',
  'readAll',
  'readable',
  'writable',
  'pin',
  'unpin',
  'backup',
  'backup',
  'restore',
  'restore',
  'purge',
  'shrink',
  'setLimit',
] as const

/** Every byte of every buffer is there; then all is given up and nothing is left. */
async function finish(world: World): Promise<void> {
  world.beginStep(false)
  world.heal()
  for (const subject of world.subjects) releaseAll(subject)
  for (const subject of [...world.subjects]) {
    if (subject.freed) continue
    world.compare(subject, 0, await world.readBack(subject, 0, subject.oracle.byteLength))
    await world.free(subject)
    await world.check()
  }
  await world.reopen()
}
