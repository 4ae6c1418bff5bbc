import { existsSync, mkdirSync, statfsSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkBackend } from './backends.ts'
import { openMemoryGroup } from './case/memory-group.ts'
import type { CaseOrder } from './case/protocol.ts'
import { isFailedCase, startCase } from './case/start-case.ts'
import type { CeilingFindings } from './ceilings/measure.ts'
import { startCeilings } from './ceilings/start-ceilings.ts'
import { writeDataSet } from './input/data-sets.ts'
import { defaultInputPaths, listInputFiles } from './input/files.ts'
import { type InputPlan, planInput, savePlan } from './input/plan.ts'
import { provenance } from './machine.ts'
import { peers } from './peers/registry.ts'
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
import { caseLine, renderTables } from './table.ts'
import { wrapForTerminal } from './terminal.ts'
import { UsageError } from './usage-error.ts'

/** What a process needs besides the pool when it runs in a memory group: Node, its code, the staging memory. */
const processAllowanceBytes = 128 * mebibyte

/** What the loops store at a time: three times 16 segments. */
const s3WarmBytes = 512 * mebibyte

interface PlannedCase {
  readonly order: CaseOrder
  /** Whether the case runs in a memory group, to be comparable with the peers. */
  readonly grouped: boolean
}

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
  const planned = planCases(options, planPath, scratch.path)
  const budget = new RunBudget(
    options.budgetSeconds,
    planned.length + Number(options.ceilings) + Number(usesS3),
    startMs,
  )
  const ceilings = await measureCeilings(options, scratch.path, view, budget, signal)
  const loops = s3 && (await measureLoops(options, s3, view, budget, signal))
  const outcomes: (CaseResult | FailedCase)[] = []
  for (const [index, { order, grouped }] of planned.entries()) {
    const title = `[${index + 1}/${planned.length}] ${order.label ?? order.subject} · ${order.workload}`
    view.begin(title, 'start')
    try {
      using group = grouped ? openGroup(options, ceilings.notes) : undefined
      const outcome = await startCase({
        order: { ...order, budgetMs: budget.next(), s3: s3?.access },
        plan,
        ceilings: ceilings.medians,
        memoryGroup: group,
        patienceMs: options.patienceMs,
        signal,
        onPhase: (phase) => view.phase(phase),
        onProgress: (done, total) => view.progress(done, total),
        onLive: (url) => view.note(`live: ${url}`),
      })
      outcomes.push(outcome)
      view.end(caseLine(outcome))
    } finally {
      view.end()
    }
  }
  const matrix = s3 && options.s3Matrix ? await measureMatrix(options, s3, view, signal) : undefined
  const seconds = (performance.now() - startMs) / 1000
  const run = assembleRun(options, plan, ceilings, { loops, matrix }, outcomes, seconds)
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
  const neededBytes = plan.dataBytes + 2 * options.limitBytes + processAllowanceBytes
  const inMemory = options.backends.find(({ description }) => description.usesMemory)
  if (inMemory !== undefined && process.availableMemory() < neededBytes) {
    throw new UsageError(
      `--limit ${formatByteSize(options.limitBytes)} with --overcommit ${options.overcommit} takes ${formatByteSize(neededBytes)} ` +
        `of memory with backend ${inMemory.name}, ${formatByteSize(process.availableMemory())} are free; give a smaller --limit`,
    )
  }
  const { bavail, bsize } = statfsSync(options.directory)
  const onDisk = options.backends.some(({ description }) => !description.usesMemory) || options.peers
  if (onDisk && bavail * bsize < neededBytes) {
    throw new UsageError(
      `--directory '${options.directory}' has ${formatByteSize(bavail * bsize)} free, this run takes ${formatByteSize(neededBytes)}; ` +
        'give another one or a smaller --limit',
    )
  }
}

function planCases(options: RunOptions, planPath: string, scratch: string): PlannedCase[] {
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
  })
  const cases = options.backends.flatMap(({ name, spec, description }) =>
    options.workloads.map((workload) => ({
      order: { ...order(spec, workload.name), ...(name === spec ? {} : { label: name }) },
      grouped: options.peers && !description.usesMemory,
    })),
  )
  const peerCases = options.peers
    ? peers.map((peer) => ({ order: order(`peer:${peer.name}`, 'random'), grouped: true }))
    : []
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
        files: options.peers || options.backends.some(({ description }) => !description.usesMemory),
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

function openGroup(options: RunOptions, notes: string[]) {
  const group = openMemoryGroup(options.limitBytes + processAllowanceBytes)
  if ('add' in group) return group
  const note = `no memory control group, so the page cache of the peers is not limited: ${group.reason}`
  if (!notes.includes(note)) notes.push(note)
  return undefined
}

function assembleRun(
  options: RunOptions,
  plan: InputPlan,
  ceilings: MeasuredCeilings,
  s3: { readonly loops: LoopsFindings | undefined; readonly matrix: MatrixFindings | undefined },
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
    ...(s3.loops === undefined ? {} : { s3: s3.loops }),
    ...(s3.matrix === undefined ? {} : { s3Matrix: s3.matrix }),
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
