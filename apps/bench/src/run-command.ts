import { existsSync, mkdirSync, statfsSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkBackend } from './backends.ts'
import { processAllowanceBytes } from './case/memory-group.ts'
import type { CaseOrder } from './case/protocol.ts'
import { isFailedCase } from './case/start-case.ts'
import type { CeilingFindings } from './ceilings/measure.ts'
import { startCeilings } from './ceilings/start-ceilings.ts'
import { writeDataSet } from './input/data-sets.ts'
import { defaultInputPaths, listInputFiles } from './input/files.ts'
import { type InputPlan, planInput, savePlan } from './input/plan.ts'
import { provenance } from './machine.ts'
import { measureCases, type PlannedCase } from './measure-cases.ts'
import { type MissingPeer, preparePeers, type ReadyPeer } from './peers/prepare-peers.ts'
import { ProgressView } from './progress.ts'
import { type CaseResult, type FailedCase, isClean, type RunResult, resultVersion } from './results.ts'
import { RunBudget } from './run-budget.ts'
import { assertDistinct, type RunOptions } from './run-options.ts'
import type { LoopsFindings } from './s3/loops.ts'
import { type MatrixFindings, matrixSize } from './s3/matrix.ts'
import { type S3Server, startS3Server } from './s3/server.ts'
import { startLoops, startMatrix } from './s3/start-measuring.ts'
import { makeScratch } from './scratch.ts'
import { formatByteSize, mebibyte } from './sizes.ts'
import { type Spread, spreadOf } from './statistics.ts'
import { renderTables } from './table.ts'
import { wrapForTerminal } from './terminal.ts'
import { UsageError } from './usage-error.ts'

/** What the loops store at a time: three times 16 segments. */
const s3WarmBytes = 512 * mebibyte

/** The command `run`. Resolves to the exit status: 0 when every byte was right, else 1. */
export async function runCommand(given: RunOptions, signal: AbortSignal): Promise<number> {
  const startMs = performance.now()
  const options = { ...given, backends: await Promise.all(given.backends.map(checkBackend)) }
  assertDistinct(options.backends)
  using scratch = makeScratch(options.directory)
  const plan = makePlan(options, scratch.path)
  assertRoom(options, plan)
  const planPath = join(scratch.path, 'plan.json')
  savePlan(planPath, plan)
  console.log(wrapForTerminal(introduction(options, plan)))
  const view = new ProgressView()
  const usesS3 = options.backends.some(({ description }) => description.name === 's3')
  await using s3 = usesS3 ? await startS3Server({ ...options.s3, warmBytes: s3WarmBytes }) : undefined
  const peers = await readyPeers(options, scratch.path, view, signal)
  const planned = planCases(options, peers.ready, planPath, scratch.path)
  const budget = new RunBudget(
    options.budgetSeconds,
    planned.length + Number(options.ceilings) + Number(usesS3),
    // Installing is not measuring.
    options.peers.length === 0 ? startMs : performance.now(),
  )
  const ceilings = await measureCeilings(options, scratch.path, view, budget, signal)
  const loops = s3 && (await measureLoops(options, s3, view, budget, signal))
  const outcomes = await measureCases({
    planned,
    plan,
    ceilings: ceilings.medians,
    s3: s3?.access,
    scratch: scratch.path,
    patienceMs: options.patienceMs,
    view,
    budget,
    signal,
    notes: ceilings.notes,
    missing: peers.missing,
  })
  const matrix = s3 && options.s3Matrix ? await measureMatrix(options, s3, view, signal) : undefined
  const seconds = (performance.now() - startMs) / 1000
  const run = assembleRun(
    options,
    plan,
    ceilings,
    { loops, matrix, missing: peers.missing },
    outcomes,
    seconds,
  )
  await writeResults(options, run)
  return isClean(run) ? 0 : 1
}

function makePlan(options: RunOptions, scratch: string): InputPlan {
  const made = options.data && [writeDataSet(options.data, scratch)]
  const inputs = made ?? options.inputs ?? defaultInputPaths(dirname(fileURLToPath(import.meta.url)))
  return planInput({
    files: listInputFiles(inputs, made === undefined && options.inputs === undefined),
    wantedBytes: options.limitBytes * options.overcommit,
    bufferBytes: options.bufferBytes,
    seed: options.seed,
  })
}

/** Refuses what cannot end well, before anything is measured. */
function assertRoom(options: RunOptions, plan: InputPlan): void {
  const processBytes = options.limitBytes + 2 * processAllowanceBytes
  // Peers take turns with the backends: all of them are there at the same time.
  const processes = options.peers.length === 0 ? 1 : options.peers.length + options.backends.length
  const neededBytes = plan.dataBytes + options.limitBytes + processes * processBytes
  const neededOnDisk = plan.dataBytes * (1 + 2 * options.peers.length) + options.limitBytes
  const inMemory = options.backends.find(({ description }) => description.usesMemory)
  if ((inMemory !== undefined || options.peers.length > 0) && process.availableMemory() < neededBytes) {
    throw new UsageError(
      `--limit ${formatByteSize(options.limitBytes)} with --overcommit ${options.overcommit} takes ${formatByteSize(neededBytes)} ` +
        `of memory with ${inMemory === undefined ? 'the peers' : `backend ${inMemory.name}`}, ${formatByteSize(process.availableMemory())} are free; give a smaller --limit`,
    )
  }
  const { bavail, bsize } = statfsSync(options.directory)
  const onDisk =
    options.backends.some(({ description }) => !description.usesMemory) || options.peers.length > 0
  if (onDisk && bavail * bsize < neededOnDisk) {
    throw new UsageError(
      `--directory '${options.directory}' has ${formatByteSize(bavail * bsize)} free, this run takes ${formatByteSize(neededOnDisk)}; ` +
        'give another one or a smaller --limit',
    )
  }
}

/** Installs what peers take, and says of those that are not to be had here why. */
async function readyPeers(options: RunOptions, scratch: string, view: ProgressView, signal: AbortSignal) {
  if (options.peers.length === 0) return { ready: [], missing: [] }
  view.begin('peers', 'install')
  try {
    const { ready, missing } = await preparePeers(options.peers, scratch, signal, (name) => view.phase(name))
    return { ready, missing: [...missing] }
  } finally {
    view.end()
  }
}

function planCases(
  options: RunOptions,
  ready: readonly ReadyPeer[],
  planPath: string,
  scratch: string,
): PlannedCase[] {
  const hasPeers = options.peers.length > 0
  const order = (subject: string, workload: string): CaseOrder => ({
    subject,
    workload,
    limitBytes: options.limitBytes,
    pageSizeBytes: options.pageSizeBytes,
    rounds: options.rounds,
    concurrency: options.concurrency,
    directory: scratch,
    io: options.io,
    checksums: options.checksums,
    budgetMs: undefined,
    planPath,
    live: options.live,
    takesTurns: hasPeers,
  })
  const cases = options.backends.flatMap(({ name, spec, description }) =>
    options.workloads.map((workload) => ({
      order: { ...order(spec, workload.name), ...(name === spec ? {} : { label: name }) },
      grouped: hasPeers && !description.usesMemory,
    })),
  )
  const peerCases = ready.flatMap(({ peer, packageDirectory }) =>
    options.workloads.map((workload) => ({
      order: {
        ...order(`peer:${peer.name}`, workload.name),
        packageDirectory,
        takesTurns: peer.swap === undefined,
      },
      grouped: true,
      peer,
    })),
  )
  return [...cases, ...peerCases]
}

interface MeasuredCeilings {
  readonly medians: Readonly<Record<string, number>>
  readonly spreads: Readonly<Record<string, Spread>>
  readonly notes: string[]
}

async function measureCeilings(
  options: RunOptions,
  scratch: string,
  view: ProgressView,
  budget: RunBudget,
  signal: AbortSignal,
): Promise<MeasuredCeilings> {
  if (!options.ceilings)
    return { medians: {}, spreads: {}, notes: ['the ceilings were not measured (--no-ceilings)'] }
  view.begin('ceilings', 'start')
  let findings: CeilingFindings
  try {
    findings = await startCeilings(
      {
        directory: scratch,
        rounds: options.rounds,
        setBytes: Math.max(8 * mebibyte, Math.min(128 * mebibyte, options.limitBytes / 2)),
        requestBytes: 2 * mebibyte,
        depth: 4,
        budgetMs: budget.next(),
        memory: true,
        files:
          options.peers.length > 0 || options.backends.some(({ description }) => !description.usesMemory),
      },
      signal,
      (step) => view.phase(step),
    )
  } finally {
    view.end()
  }
  const spreads: Record<string, Spread> = {}
  for (const [name, rounds] of Object.entries(findings.rounds)) {
    const spread = spreadOf(rounds)
    if (spread !== undefined) spreads[name] = spread
  }
  const medians = Object.fromEntries(Object.entries(spreads).map(([name, { median }]) => [name, median]))
  return { medians, spreads, notes: [...findings.notes] }
}

async function measureLoops(
  { rounds, concurrency }: RunOptions,
  server: S3Server,
  view: ProgressView,
  budget: RunBudget,
  signal: AbortSignal,
): Promise<LoopsFindings> {
  view.begin('bare S3 calls', 'loops')
  try {
    return await startLoops({ rounds, concurrency, budgetMs: budget.next() }, server, signal)
  } finally {
    view.end()
  }
}

async function measureMatrix(
  { concurrency }: RunOptions,
  server: S3Server,
  view: ProgressView,
  signal: AbortSignal,
): Promise<MatrixFindings> {
  view.begin('S3 with latency and errors', 'matrix')
  try {
    return await startMatrix({ concurrency, ...matrixSize }, server, signal)
  } finally {
    view.end()
  }
}

function assembleRun(
  options: RunOptions,
  plan: InputPlan,
  ceilings: MeasuredCeilings,
  also: {
    readonly loops: LoopsFindings | undefined
    readonly matrix: MatrixFindings | undefined
    readonly missing: readonly MissingPeer[]
  },
  outcomes: readonly (CaseResult | FailedCase)[],
  seconds: number,
): RunResult {
  return {
    resultVersion,
    ...provenance(options.directory),
    settings: {
      seed: options.seed,
      rounds: options.rounds,
      overcommit: options.overcommit,
      inputs: options.inputs ?? [options.data ?? 'installed node_modules and the node executable'],
      inputFiles: plan.files.length,
      inputBytes: plan.distinctBytes,
      io: options.io,
      checksums: options.checksums,
      budgetSeconds: options.budgetSeconds ?? null,
    },
    ...(also.loops === undefined ? {} : { s3: also.loops }),
    ...(also.matrix === undefined ? {} : { s3Matrix: also.matrix }),
    ...(options.peers.length === 0 ? {} : { missingPeers: also.missing }),
    ceilings: ceilings.medians,
    ceilingSpreads: ceilings.spreads,
    ceilingNotes: ceilings.notes,
    cases: outcomes.filter((outcome): outcome is CaseResult => !isFailedCase(outcome)),
    failedCases: outcomes.filter(isFailedCase),
    seconds,
  }
}

function introduction(options: RunOptions, plan: InputPlan): string {
  const copies = plan.dataBytes / plan.distinctBytes
  return (
    `${formatByteSize(plan.dataBytes)} of ${plan.files.length} real files ` +
    `(${formatByteSize(plan.distinctBytes)}${copies > 1 ? `, repeated ${copies.toFixed(1)} times with another salt each` : ''}) ` +
    `through a pool with a limit of ${formatByteSize(options.limitBytes)}`
  )
}

async function writeResults(options: RunOptions, run: RunResult): Promise<void> {
  console.log(renderTables(run))
  const written: string[] = []
  for (const [path, content] of [
    [options.jsonPath, () => `${JSON.stringify(run, undefined, 1)}\n`],
    [options.reportPath, async () => (await import('./report/page.ts')).renderReport(run)],
  ] as const) {
    if (path === undefined) continue
    if (!existsSync(dirname(path))) mkdirSync(dirname(path))
    writeFileSync(path, await content())
    written.push(path)
  }
  if (written.length > 0) console.log(`written: ${written.join(', ')}`)
}
