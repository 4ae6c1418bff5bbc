import { fork } from 'node:child_process'
import type { InputPlan } from '../input/plan.ts'
import { programPath } from '../program-path.ts'
import type { CaseResult, Ceilings, FailedCase } from '../results.ts'
import { type Spread, spreadOf } from '../statistics.ts'
import type { MemoryGroup } from './memory-group.ts'
import { MemoryWatcher } from './memory-samples.ts'
import type { CaseFindings, CaseMessage, CaseOrder, CasePhase } from './protocol.ts'

export interface CaseStart {
  readonly order: CaseOrder
  readonly plan: InputPlan
  readonly ceilings: Ceilings
  readonly memoryGroup: MemoryGroup | undefined
  readonly signal: AbortSignal
  readonly onPhase: (phase: CasePhase) => void
  readonly onProgress: (doneBytes: number, totalBytes: number) => void
}

/** Collections before a baseline; else V8 is as every program has it, with a young generation that grows as it likes. */
const caseFlags = ['--expose-gc']

/** Runs one case in a process of its own and watches it. Resolves to what came of it; rejects only when aborted. */
export async function startCase(start: CaseStart): Promise<CaseResult | FailedCase> {
  const { order, signal } = start
  signal.throwIfAborted()
  const child = fork(programPath('case-process'), [], {
    execArgv: caseFlags,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const kill = () => child.kill('SIGKILL')
  signal.addEventListener('abort', kill, { once: true })
  using watcher = new MemoryWatcher(child.pid ?? 0)
  const phases: { phase: CasePhase; ms: number }[] = []
  let findings: CaseFindings | undefined
  let failure: string | undefined
  let reportedBaseline = 0

  child.on('message', (message: CaseMessage) => {
    switch (message.type) {
      case 'baseline':
        reportedBaseline = message.residentBytes
        watcher.markBaseline()
        child.send('held')
        break
      case 'phase':
        phases.push({ phase: message.phase, ms: Math.round(watcher.elapsedMs) })
        if (message.phase === 'end') {
          watcher.noteHighWater()
          child.send('held')
        }
        start.onPhase(message.phase)
        break
      case 'progress':
        start.onProgress(message.doneBytes, message.totalBytes)
        break
      case 'findings':
        findings = message.findings
        break
      case 'failure':
        failure = process.env['SPILLWAY_BENCH_STACKS'] ? (message.stack ?? message.message) : message.message
        break
    }
  })
  const ended = new Promise<string>((resolve) => {
    child.once('error', (problem) => resolve(problem.message))
    child.once('close', (code, signalName) => resolve(signalName ?? `exit status ${code}`))
  })
  start.memoryGroup?.add(child.pid ?? 0)
  child.send(order)
  const ending = await ended
  signal.removeEventListener('abort', kill)
  signal.throwIfAborted()
  if (findings === undefined) {
    const message = failure ?? `the process of the case ended early (${ending})`
    return { backend: order.subject, workload: order.workload, message }
  }
  return assemble(start, findings, watcher, phases, reportedBaseline)
}

function assemble(
  { order, plan, ceilings, memoryGroup }: CaseStart,
  findings: CaseFindings,
  watcher: MemoryWatcher,
  phases: readonly { phase: CasePhase; ms: number }[],
  reportedBaseline: number,
): CaseResult {
  const spread: Record<string, Spread | undefined> = {}
  for (const [name, rounds] of Object.entries(findings.rounds)) spread[name] = spreadOf(rounds)
  const medianOf = (name: keyof CaseFindings['rounds']) => spread[name]?.median ?? null
  const peer = order.subject.startsWith('peer:')
  return {
    backend: order.subject,
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
    baselineRssBytes: watcher.baselineBytes || reportedBaseline,
    memory: { peakSharedBytes: watcher.peakSharedBytes, samples: watcher.samples, phases },
    seconds: watcher.elapsedMs / 1000,
    ...findings,
  }
}

export function isFailedCase(outcome: CaseResult | FailedCase): outcome is FailedCase {
  return 'message' in outcome
}
