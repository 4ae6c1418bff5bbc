import { provenance } from './machine.ts'
import { writeJson } from './output.ts'
import { drivePool } from './policy/drive-pool.ts'
import { missedGoals, renderTraces, type TraceOutcome } from './policy/outcome.ts'
import { type SimulatorName, simulate, simulatorNames, simulators } from './policy/simulators.ts'
import { assertTrace, type Trace } from './policy/trace.ts'
import { readTrace } from './policy/trace-file.ts'
import { makeTrace, traceKinds } from './policy/traces.ts'
import { parseCount } from './run-options.ts'
import { UsageError } from './usage-error.ts'

export interface PolicyArguments {
  readonly trace: string
  readonly file?: string
  readonly policy: string
  readonly pages: string
  readonly length: string
  readonly chunkPages: string
  readonly seed: string
  readonly background: boolean
  readonly json: string | boolean
}

interface PolicyOptions {
  readonly capacityPages: number
  readonly chunkPages: number
  readonly policies: readonly SimulatorName[]
  readonly traces: readonly { readonly isLoop: boolean; readonly make: () => Trace }[]
  readonly background: boolean
  readonly seed: number
}

/** Accesses that only warm up, as a multiple of the capacity. */
const warmUp = 5

/**
 * The command `policy`: hit rates and backup writes of the pool beside policies simulated on the same trace. Resolves to 0
 * when the pool meets every goal, else 1.
 */
export async function policyCommand(given: PolicyArguments, signal: AbortSignal): Promise<number> {
  const options = parsePolicyOptions(given)
  const { capacityPages, chunkPages, policies, seed, background } = options
  console.log(
    `policy: room for ${capacityPages} chunks of ${chunkPages} pages, the first ${warmUp * capacityPages} accesses not counted, seed ${seed}`,
  )
  const outcomes: TraceOutcome[] = []
  for (const { isLoop, make } of options.traces) {
    const trace = make()
    if (process.stderr.isTTY) console.error(`following ${trace.name}`)
    outcomes.push(await followTrace(trace, isLoop, options, signal))
  }
  console.log(renderTraces(outcomes, policies))
  const missed = outcomes.filter((outcome) => missedGoals(outcome).length > 0)
  console.log(
    missed.length === 0
      ? 'every goal is met'
      : `goals are missed on ${missed.length} of ${outcomes.length} traces`,
  )
  writeJson(given.json, {
    ...provenance(process.cwd()),
    capacityPages,
    chunkPages,
    seed,
    background,
    outcomes,
  })
  return missed.length === 0 ? 0 : 1
}

async function followTrace(
  trace: Trace,
  isLoop: boolean,
  options: PolicyOptions,
  signal: AbortSignal,
): Promise<TraceOutcome> {
  assertTrace(trace)
  const { capacityPages, policies } = options
  const uncounted = warmUp * capacityPages
  if (trace.pages.length <= uncounted) {
    throw new UsageError(
      `trace '${trace.name}' has ${trace.pages.length} accesses; with ${capacityPages} pages it takes more than ${uncounted}, which only warm up`,
    )
  }
  // The pool may keep one largest chunk back, so that what is evicted next has somewhere to go.
  const reserve = 1
  const simulated = policies.map((name) => [
    name,
    simulate(simulators[name], trace, capacityPages - reserve, uncounted),
  ])
  return {
    trace: trace.name,
    isLoop,
    pool: await drivePool(trace, options, uncounted, signal),
    simulated: Object.fromEntries(simulated) as TraceOutcome['simulated'],
  }
}

/** Throws `UsageError` with one line that names the value. */
export function parsePolicyOptions(given: PolicyArguments): PolicyOptions {
  const capacityPages = parseCount(given.pages, '--pages', 16, 2 ** 20)
  const accesses = capacityPages * parseCount(given.length, '--length', 0, 10_000)
  const chunkPages = parseCount(given.chunkPages, '--chunk-pages', 1, 512)
  if (!Number.isInteger(Math.log2(chunkPages))) {
    throw new UsageError(`--chunk-pages '${given.chunkPages}' is not a power of two`)
  }
  const seed = parseCount(given.seed, '--seed', 0, 2 ** 31)
  const shape = { capacityPages, accesses, seed }
  const known = traceKinds.map(({ name }) => name)
  const wanted = parseNames(given.trace, '--trace', known)
  const { file } = given
  return {
    capacityPages,
    chunkPages,
    policies: parseNames(given.policy, '--policy', simulatorNames),
    traces:
      file !== undefined
        ? [{ isLoop: false, make: () => readTrace(file) }]
        : traceKinds
            .filter(({ name }) => wanted.includes(name))
            .map((kind) => ({ isLoop: kind.isLoop ?? false, make: () => makeTrace(kind, shape) })),
    background: given.background,
    seed,
  }
}

function parseNames<Name extends string>(text: string, option: string, known: readonly Name[]): Name[] {
  if (text === 'all') return [...known]
  const names = text.split(',').map((name) => name.trim())
  const unknown = names.find((name) => !(known as readonly string[]).includes(name))
  if (unknown !== undefined) {
    throw new UsageError(`${option} '${unknown}' is unknown; it can be all, or some of ${known.join(', ')}`)
  }
  return known.filter((name) => names.includes(name))
}
