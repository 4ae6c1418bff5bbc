import { type MemoryGroup, openMemoryGroup } from './case/memory-group.ts'
import type { CaseOrder } from './case/protocol.ts'
import { startCase } from './case/start-case.ts'
import { Turns } from './case/turns.ts'
import type { InputPlan } from './input/plan.ts'
import type { MissingPeer } from './peers/prepare-peers.ts'
import type { PeerDescription } from './peers/registry.ts'
import { openSwapSpace } from './peers/swap-space.ts'
import type { ProgressView } from './progress.ts'
import type { CaseResult, Ceilings, FailedCase } from './results.ts'
import type { RunBudget } from './run-budget.ts'
import type { S3Access } from './s3/server.ts'
import { mebibyte } from './sizes.ts'
import { caseLine } from './table.ts'

/** More swap space than there is data, for what else the process holds. */
const spareSwapBytes = 256 * mebibyte

export interface PlannedCase {
  readonly order: CaseOrder
  /** Whether the case runs in a memory group, to be comparable with the peers. */
  readonly grouped: boolean
  readonly peer?: PeerDescription | undefined
}

export interface CasesToMeasure {
  readonly planned: readonly PlannedCase[]
  readonly plan: InputPlan
  readonly ceilings: Ceilings
  readonly s3: S3Access | undefined
  readonly scratch: string
  readonly patienceMs: number
  readonly view: ProgressView
  readonly budget: RunBudget
  readonly signal: AbortSignal
  /** Gets what should be known of the figures. */
  readonly notes: string[]
  /** Gets the peers of which it turns out that they cannot be measured here. */
  readonly missing: MissingPeer[]
}

/** Measures all cases, each in a process of its own. Rejects only when aborted. */
export async function measureCases(run: CasesToMeasure): Promise<(CaseResult | FailedCase)[]> {
  const outcomes = new Map<PlannedCase, CaseResult | FailedCase>()
  const measure = async (planned: PlannedCase, turns?: Turns) => {
    const outcome = await measureCase(run, planned, turns)
    if (outcome === undefined) return
    outcomes.set(planned, outcome)
    run.view.end(caseLine(outcome))
  }
  const inTurns = run.planned.filter(({ order }) => order.takesTurns === true)
  for (const workload of new Set(inTurns.map(({ order }) => order.workload))) {
    const turns = new Turns()
    const cases = inTurns.filter(({ order }) => order.workload === workload)
    const ends = await Promise.allSettled(cases.map((planned) => measure(planned, turns)))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }
  for (const planned of run.planned) if (!inTurns.includes(planned)) await measure(planned)
  return run.planned.flatMap((planned) => outcomes.get(planned) ?? [])
}

async function measureCase(
  run: CasesToMeasure,
  { order, grouped, peer }: PlannedCase,
  turns: Turns | undefined,
): Promise<CaseResult | FailedCase | undefined> {
  const { planned, plan, view, budget, signal, missing } = run
  const number = 1 + planned.findIndex((each) => each.order === order)
  const title = `[${number}/${planned.length}] ${order.label ?? order.subject} · ${order.workload}`
  if (missing.some(({ name }) => name === peer?.name)) return undefined
  if (turns === undefined) view.begin(title, 'start')
  try {
    using group = grouped ? openGroup(peer?.swap !== undefined, run.notes) : undefined
    if (peer?.swap !== undefined && group === undefined) throw new Error('it takes a memory control group')
    using _swap = peer?.swap && openSwapSpace(peer.swap, plan.dataBytes + spareSwapBytes, run.scratch)
    return await startCase({
      order: { ...order, budgetMs: budget.next(), s3: run.s3 },
      plan,
      ceilings: run.ceilings,
      memoryGroup: group,
      turns,
      patienceMs: run.patienceMs,
      signal,
      onPhase: (phase) => (turns === undefined ? view.phase(phase) : view.begin(title, phase)),
      onProgress: (done, total) => view.progress(done, total),
      onLive: (url) => view.note(`live: ${url}`),
    })
  } catch (failure) {
    signal.throwIfAborted()
    if (peer?.swap === undefined) throw failure
    missing.push({ name: peer.name, reason: failure instanceof Error ? failure.message : String(failure) })
    return undefined
  } finally {
    if (turns === undefined) view.end()
  }
}

function openGroup(swaps: boolean, notes: string[]): MemoryGroup | undefined {
  const group = openMemoryGroup(swaps)
  if ('add' in group) return group
  const note = `no memory control group, so the page cache of the peers is not limited: ${group.reason}`
  if (!notes.includes(note)) notes.push(note)
  return undefined
}
