import { execFile } from 'node:child_process'
import type { InputPlan } from '../input/plan.ts'
import { MeasuringProcess } from '../measuring-process.ts'
import type { CaseResult, Ceilings, FailedCase } from '../results.ts'
import { mebibyte } from '../sizes.ts'
import { type Spread, spreadOf } from '../statistics.ts'
import { type MemoryGroup, processAllowanceBytes } from './memory-group.ts'
import { MemoryWatcher } from './memory-samples.ts'
import type { CaseFindings, CaseMessage, CaseOrder, CasePhase, CaseRounds } from './protocol.ts'
import type { Turns } from './turns.ts'

export interface CaseStart {
  readonly order: CaseOrder
  readonly plan: InputPlan
  readonly ceilings: Ceilings
  readonly memoryGroup: MemoryGroup | undefined
  /** Whose turns the case takes part in, if its order says so. */
  readonly turns?: Turns | undefined
  /** A case that makes no progress for so long is ended. */
  readonly patienceMs: number
  readonly signal: AbortSignal
  readonly onPhase: (phase: CasePhase) => void
  readonly onProgress: (doneBytes: number, totalBytes: number) => void
  /** Told where the dashboard of the case is. */
  readonly onLive?: (url: string) => void
}

/** How long a turn may wait for the disk to be done with what came before. */
const settleMs = 1000

/** Collections before a baseline; else V8 is as every program has it, with a young generation that grows as it likes. */
const caseFlags = ['--expose-gc', '--disable-warning=ExperimentalWarning']

/** What a case has told so far. */
interface CaseReport {
  readonly phases: { phase: CasePhase; ms: number }[]
  findings: CaseFindings | undefined
  failure: string | undefined
  rounds: Partial<CaseRounds>
  baselineBytes: number
}

/** Runs one case in a process of its own and watches it. Resolves to what came of it; rejects only when aborted. */
export async function startCase(start: CaseStart): Promise<CaseResult | FailedCase> {
  const { order, signal, patienceMs } = start
  const measuring = new MeasuringProcess<CaseOrder, CaseMessage>('case-process', signal, caseFlags)
  using turn = new TurnOfCase(start.turns, order.directory)
  using watcher = new MemoryWatcher(measuring.pid)
  const report: CaseReport = {
    phases: [],
    findings: undefined,
    failure: undefined,
    rounds: {},
    baselineBytes: 0,
  }
  let heardMs = performance.now()
  measuring.onMessage((message) => {
    heardMs = performance.now()
    if (message.type === 'turn') turn.next(message.quiet, () => measuring.send('turn'))
    else hear(start, message, report, { measuring, watcher })
  })
  start.memoryGroup?.add(measuring.pid)
  const timer = setInterval(
    () => {
      if (turn.isWaiting) heardMs = performance.now()
      if (performance.now() - heardMs < patienceMs) return
      report.failure ??= `no progress for ${patienceMs / 1000} s (--patience): a call of the backend seems never to settle`
      measuring.kill()
    },
    Math.min(1000, patienceMs / 4),
  )
  try {
    const ending = await measuring.run(order)
    report.failure ??= start.memoryGroup?.wasExceeded()
      ? `the process took more memory than its limit and ${processAllowanceBytes / mebibyte} MiB, and was killed`
      : `the process of the case ended early (${ending})`
  } finally {
    clearInterval(timer)
  }
  if (report.findings === undefined) return failed(order, report)
  return assemble(start, report.findings, watcher, report)
}

/** The turn of one case: it ends when the case wants the next one, and when the case is over. */
class TurnOfCase implements Disposable {
  readonly #turns: Turns | undefined
  readonly #directory: string
  #end: (() => void) | undefined
  #over = false
  isWaiting = false

  constructor(turns: Turns | undefined, directory: string) {
    this.#turns = turns
    this.#directory = directory
  }

  /** Calls `begin` when it is the turn of the case again, and, if it has to be quiet, the disk at rest. */
  async next(quiet: boolean, begin: () => void): Promise<void> {
    this.isWaiting = true
    this.#end?.()
    this.#end = undefined
    const end = await this.#turns?.take()
    if (this.#over) {
      end?.()
      return
    }
    this.#end = end
    if (quiet) await settleDisk(this.#directory)
    this.isWaiting = false
    begin()
  }

  [Symbol.dispose](): void {
    this.#over = true
    this.#end?.()
  }
}

/** Waits until what others wrote is on the disk; where the system cannot tell, for nothing. */
function settleDisk(directory: string): Promise<void> {
  return new Promise((resolve) => {
    execFile('sync', ['--file-system', directory], { timeout: settleMs }, () => resolve())
  })
}

function hear(
  start: CaseStart,
  message: CaseMessage,
  report: CaseReport,
  { measuring, watcher }: { measuring: MeasuringProcess<CaseOrder, CaseMessage>; watcher: MemoryWatcher },
): void {
  switch (message.type) {
    case 'baseline':
      report.baselineBytes = message.residentBytes
      watcher.markBaseline()
      try {
        start.memoryGroup?.allow(start.order.limitBytes + processAllowanceBytes)
      } catch (failure) {
        report.failure = `the memory control group could not be limited: ${String(failure)}`
        measuring.kill()
      }
      measuring.send('held')
      break
    case 'phase':
      report.phases.push({ phase: message.phase, ms: Math.round(watcher.elapsedMs) })
      if (message.phase === 'end') {
        watcher.noteHighWater()
        measuring.send('held')
      }
      start.onPhase(message.phase)
      break
    case 'progress':
      start.onProgress(message.doneBytes, message.totalBytes)
      break
    case 'alive':
    case 'turn':
      break
    case 'live':
      start.onLive?.(message.url)
      break
    case 'figures':
      report.rounds = { ...report.rounds, ...message.rounds }
      break
    case 'findings':
      report.findings = message.findings
      break
    case 'failure':
      report.failure ??= process.env['SPILLWAY_BENCH_STACKS']
        ? (message.stack ?? message.message)
        : message.message
      break
  }
}

/** The case failed; what it had measured by then is kept. */
function failed(order: CaseOrder, { failure, phases, rounds }: CaseReport): FailedCase {
  const medians = Object.entries(rounds).flatMap(([name, values]) => {
    const median = spreadOf(values)?.median
    return median === undefined ? [] : [[name, median]]
  })
  return {
    backend: order.label ?? order.subject,
    workload: order.workload,
    message: failure ?? '',
    phase: phases.at(-1)?.phase,
    measured: Object.fromEntries(medians),
  }
}

function assemble(
  { order, plan, ceilings, memoryGroup }: CaseStart,
  findings: CaseFindings,
  watcher: MemoryWatcher,
  { phases, baselineBytes }: CaseReport,
): CaseResult {
  const spread: Record<string, Spread | undefined> = {}
  for (const [name, rounds] of Object.entries(findings.rounds)) spread[name] = spreadOf(rounds)
  const medianOf = (name: keyof CaseFindings['rounds']) => spread[name]?.median ?? null
  const peer = order.subject.startsWith('peer:')
  return {
    backend: order.label ?? order.subject,
    spec: order.label === undefined ? undefined : order.subject,
    workload: order.workload,
    peer,
    pageSizeBytes: order.pageSizeBytes,
    limitBytes: order.limitBytes,
    dataBytes: plan.dataBytes,
    bufferBytes: plan.bufferBytes,
    concurrency: order.concurrency,
    memoryGroup: memoryGroup !== undefined,
    backupBytesPerSecond: medianOf('backupBytesPerSecond'),
    restoreBytesPerSecond: medianOf('restoreBytesPerSecond'),
    backupGivingBackBytesPerSecond: medianOf('backupGivingBackBytesPerSecond'),
    restoreIntoNewBytesPerSecond: medianOf('restoreIntoNewBytesPerSecond'),
    touchedBytesPerSecond: medianOf('touchedBytesPerSecond'),
    pageRestoresPerSecondDepth4: medianOf('pageRestoresPerSecondDepth4'),
    pageRestoresPerSecondDepth32: medianOf('pageRestoresPerSecondDepth32'),
    spread,
    ceilings,
    peakRssBytes: watcher.peakBytes,
    baselineRssBytes: watcher.baselineBytes || baselineBytes,
    memory: { peakSharedBytes: watcher.peakSharedBytes, samples: watcher.samples, phases },
    seconds: watcher.elapsedMs / 1000,
    ...findings,
  }
}

export function isFailedCase(outcome: CaseResult | FailedCase): outcome is FailedCase {
  return 'message' in outcome
}
