import { backends } from './backends.ts'
import type { CaseResult, RunResult } from './results.ts'
import { judgeLoops, judgeMatrix } from './s3/outcome.ts'
import { formatByteSize, formatMilliseconds, mebibyte } from './sizes.ts'
import { spreadOf } from './statistics.ts'

/** One goal of the design, held against what was measured. */
export interface GoalOutcome {
  readonly subject: string
  readonly what: string
  readonly against: string
  readonly goal: string
  readonly measured: string
  readonly met: boolean
}

/** Memory above the limit that a pool may take for itself. */
export const allowedExtraBytes = 32 * mebibyte

type RateName =
  | 'backupBytesPerSecond'
  | 'restoreBytesPerSecond'
  | 'backupGivingBackBytesPerSecond'
  | 'restoreIntoNewBytesPerSecond'
  | 'touchedBytesPerSecond'
type PageRateName = 'pageRestoresPerSecondDepth4' | 'pageRestoresPerSecondDepth32'

/** Median over the rounds of every case of one backend: whole buffers are measured in each of them. */
export function backendMedian(
  run: RunResult,
  backend: string,
  name: RateName | PageRateName,
): number | undefined {
  const rounds = run.cases.filter((each) => each.backend === backend).flatMap((each) => each.rounds[name])
  return spreadOf(rounds)?.median
}

/** The ceiling that the whole buffers of a backend are held against: the first of its list that was measured. */
export function ceilingOf(
  run: RunResult,
  backend: string,
  direction: 'backup' | 'restore',
): { readonly name: string; readonly bytesPerSecond: number } | undefined {
  const description = backends.find((each) => each.name === specOf(run, backend).split(/[:+]/)[0])
  const names = direction === 'backup' ? description?.backupCeilings : description?.restoreCeilings
  const name = names?.find((each) => run.ceilings[each] > 0)
  return name === undefined ? undefined : { name, bytesPerSecond: run.ceilings[name] }
}

/** The backend as `--backend` has it, whatever its label is. */
export function specOf(run: Pick<RunResult, 'cases'>, backend: string): string {
  return run.cases.find((each) => each.backend === backend)?.spec ?? backend
}

/** Backends and peers in the order in which they were run. */
export function subjectsOf(run: RunResult): string[] {
  return [...new Set(run.cases.map((each) => each.backend))]
}

/** Holds a run against the goals that can be judged from it. */
export function judgeGoals(run: RunResult): GoalOutcome[] {
  const outcomes: GoalOutcome[] = []
  for (const backend of subjectsOf(run).filter((name) => !name.startsWith('peer:'))) {
    const cases = run.cases.filter((each) => each.backend === backend)
    if (!specOf(run, backend).startsWith('memory')) {
      judgeWholeBuffers(run, backend, outcomes)
      judgeSinglePages(run, backend, outcomes)
      judgePeers(run, backend, outcomes)
      judgeMemory(backend, cases, outcomes)
    }
    judgeLoop(backend, cases, outcomes)
  }
  if (run.s3 !== undefined) outcomes.push(...judgeLoops(run.s3))
  if (run.s3Matrix !== undefined) outcomes.push(...judgeMatrix(run.s3Matrix))
  return outcomes
}

function isFileBackend(run: RunResult, backend: string): boolean {
  return /^file(?=[:+]|$)/.test(specOf(run, backend))
}

function usesChecksums(run: RunResult, backend: string): boolean {
  return run.settings.checksums && !specOf(run, backend).includes(':unchecked')
}

function judgeWholeBuffers(run: RunResult, backend: string, outcomes: GoalOutcome[]): void {
  const isFile = isFileBackend(run, backend)
  const goal = isFile ? (usesChecksums(run, backend) ? 0.85 : 1) : 0.8
  for (const direction of ['backup', 'restore'] as const) {
    const rate = backendMedian(run, backend, `${direction}BytesPerSecond`)
    const ceiling = ceilingOf(run, backend, direction)
    if (rate === undefined || ceiling === undefined) continue
    const checksums = isFile ? (usesChecksums(run, backend) ? ', with checksums' : ', without checksums') : ''
    outcomes.push(
      ratioOutcome(
        backend,
        `whole buffers, ${direction}${checksums}`,
        ceilingTitle(ceiling.name),
        rate / ceiling.bytesPerSecond,
        goal,
      ),
    )
  }
}

function judgeSinglePages(run: RunResult, backend: string, outcomes: GoalOutcome[]): void {
  if (!isFileBackend(run, backend)) return
  const engine = ioEngineOf(run, backend)
  for (const depth of [4, 32] as const) {
    const rate = backendMedian(run, backend, `pageRestoresPerSecondDepth${depth}`)
    const ceiling = run.ceilings[`fioRandom4KiBDepth${depth}`]
    if (rate === undefined || !(ceiling > 0)) continue
    const what = `single pages restored, depth ${depth}${engine === undefined ? '' : ` (${engine})`}`
    outcomes.push(
      ratioOutcome(backend, what, 'fio io_uring', rate / ceiling, engine === 'threads' ? 0.45 : 0.85),
    )
  }
}

function judgePeers(run: RunResult, backend: string, outcomes: GoalOutcome[]): void {
  const own = run.cases.find((each) => each.backend === backend && each.workload === 'random')
  const others = run.cases.filter(
    (each) => each.peer && each.workload === 'random' && each.memoryGroup === own?.memoryGroup,
  )
  if (own?.touchedBytesPerSecond == null || others.length === 0) return
  const best = others.reduce((left, right) =>
    (right.touchedBytesPerSecond ?? 0) > (left.touchedBytesPerSecond ?? 0) ? right : left,
  )
  const ratio = own.touchedBytesPerSecond / (best.touchedBytesPerSecond ?? Number.NaN)
  outcomes.push(ratioOutcome(backend, 'random whole buffers, 10 % rewritten', best.backend, ratio, 1.4))
}

function judgeMemory(backend: string, cases: readonly CaseResult[], outcomes: GoalOutcome[]): void {
  const above = Math.max(...cases.map((each) => each.peakRssBytes - each.baselineRssBytes - each.limitBytes))
  outcomes.push({
    subject: backend,
    what: 'peak resident memory above the empty process',
    against: 'the limit',
    goal: `≤ limit + ${formatByteSize(allowedExtraBytes)}`,
    measured: `limit ${above < 0 ? '−' : '+'} ${formatByteSize(Math.abs(above))}`,
    met: above <= allowedExtraBytes,
  })
  const returns = cases.flatMap((each) => (each.memoryReturn === undefined ? [] : [each.memoryReturn]))
  if (returns.length === 0) return
  const worst = returns.reduce((left, right) => (right.ms > left.ms ? right : left))
  outcomes.push({
    subject: backend,
    what: 'memory back with the system after a backup',
    against: '',
    goal: '≤ 100 ms',
    measured:
      worst.share >= 0.9
        ? formatMilliseconds(worst.ms)
        : `${Math.round(worst.share * 100)} % after ${formatMilliseconds(worst.ms)}`,
    met: worst.share >= 0.9 && worst.ms <= 100,
  })
}

function judgeLoop(backend: string, cases: readonly CaseResult[], outcomes: GoalOutcome[]): void {
  const p99 = Math.max(...cases.map((each) => each.eventLoopDelayP99Ms))
  const max = Math.max(...cases.map((each) => each.eventLoopDelayMaxMs))
  outcomes.push({
    subject: backend,
    what: 'event-loop delay at full load, p99 and max',
    against: '',
    goal: '≤ 5 ms, ≤ 20 ms',
    measured: `${formatMilliseconds(p99)}, ${formatMilliseconds(max)}`,
    met: p99 <= 5 && max <= 20,
  })
}

function ratioOutcome(
  subject: string,
  what: string,
  against: string,
  ratio: number,
  goal: number,
): GoalOutcome {
  return {
    subject,
    what,
    against,
    goal: `≥ ${goal.toFixed(2)} ×`,
    measured: `${ratio.toFixed(2)} ×`,
    met: ratio >= goal,
  }
}

/** `uring` or `threads`, where the backend's statistics tell. */
function ioEngineOf(run: RunResult, backend: string): string | undefined {
  const stats = run.cases.find((each) => each.backend === backend)?.backendStats as
    | Record<string, unknown>
    | undefined
  for (const name of ['io', 'engine', 'ioEngine']) {
    const value = stats?.[name]
    if (typeof value === 'string') return value
    if (typeof value === 'object' && value !== null) {
      const inner = (value as Record<string, unknown>)['engine']
      if (typeof inner === 'string') return inner
    }
  }
  return undefined
}

const ceilingTitles: Readonly<Record<string, string>> = {
  memcpy: 'C memcpy',
  typedArraySet: 'TypedArray.set',
  nodeDirectWrite: 'node:fs direct write',
  nodeDirectRead: 'node:fs direct read',
  nodeBufferedWrite: 'node:fs cached write',
  nodeBufferedRead: 'node:fs cached read',
  fioPsyncWrite: 'fio psync write',
  fioPsyncRead: 'fio psync read',
  fioLibaioWrite: 'fio libaio write',
  fioLibaioRead: 'fio libaio read',
  fioIoUringWrite: 'fio io_uring write',
  fioIoUringRead: 'fio io_uring read',
  fioBestWrite: 'best of fio, write',
  fioBestRead: 'best of fio, read',
  fioRandom4KiBDepth4: 'fio random 4 KiB, depth 4',
  fioRandom4KiBDepth32: 'fio random 4 KiB, depth 32',
}

/** The ceiling's name for people. */
export function ceilingTitle(name: string): string {
  return ceilingTitles[name] ?? name
}
