import type { InputPlan } from '../input/plan.ts'
import { MeasuringProcess } from '../measuring-process.ts'
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
  const measuring = new MeasuringProcess<CaseOrder, CaseMessage>('case-process', signal, caseFlags)
  using watcher = new MemoryWatcher(measuring.pid)
  const phases: { phase: CasePhase; ms: number }[] = []
  let findings: CaseFindings | undefined
  let failure: string | undefined
  let reportedBaseline = 0

  measuring.onMessage((message) => {
    switch (message.type) {
      case 'baseline':
        reportedBaseline = message.residentBytes
        watcher.markBaseline()
        measuring.send('held')
        break
      case 'phase':
        phases.push({ phase: message.phase, ms: Math.round(watcher.elapsedMs) })
        if (message.phase === 'end') {
          watcher.noteHighWater()
          measuring.send('held')
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
  start.memoryGroup?.add(measuring.pid)
  const ending = await measuring.run(order)
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
