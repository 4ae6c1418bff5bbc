import { styleText } from 'node:util'
import { textTable } from '../text-table.ts'
import type { Outcome, SimulatorName } from './simulators.ts'

/** A trace, followed by the pool and by simulators. */
export interface TraceOutcome {
  readonly trace: string
  readonly isLoop: boolean
  readonly pool: Outcome
  readonly simulated: Readonly<Partial<Record<SimulatorName, Outcome>>>
}

/** How much worse than the best of the others the pool's hit rate may be. */
const hitRateMargin = 0.01
/** How many times as much as LRU the pool may store. */
const writeFactor = 1.05
/** What share of the optimum's hits the pool must have on a loop. */
const loopShare = 0.5

/** What the pool misses of the goals on a trace, in words; as far as the policies to compare with were simulated. */
export function missedGoals({ isLoop, pool, simulated }: TraceOutcome): string[] {
  const missed: string[] = []
  const rates = (['lru', 'sieve', 's3-fifo'] as const).map((name) => simulated[name]?.hitRate ?? 0)
  const best = Math.max(...rates)
  if (pool.hitRate < best - hitRateMargin) missed.push('hits')
  if (isLoop && simulated.min !== undefined && pool.hitRate < loopShare * simulated.min.hitRate)
    missed.push('loop')
  const { lru } = simulated
  if (lru !== undefined && pool.backupWrites > writeFactor * lru.backupWrites) missed.push('writes')
  return missed
}

/** The table: for each trace the hit rates, and below them the pages stored. At most 80 columns. */
export function renderTraces(outcomes: readonly TraceOutcome[], policies: readonly SimulatorName[]): string {
  const rows = outcomes.map((outcome) => {
    const missed = missedGoals(outcome)
    return [
      `${outcome.trace}\n${styleText('dim', '  pages stored')}`,
      cell(outcome.pool),
      ...policies.map((name) => cell(outcome.simulated[name])),
      missed.length === 0 ? 'met' : missed.map((goal) => styleText('red', goal)).join('\n'),
    ]
  })
  return textTable(['hit rate', 'pool', ...policies, 'goals'], rows, 1)
}

function cell(outcome: Outcome | undefined): string {
  if (outcome === undefined) return '–'
  return `${outcome.hitRate.toFixed(4)}\n${styleText('dim', pageCount(outcome.backupWrites))}`
}

/** At most six characters. */
function pageCount(pages: number): string {
  return pages < 1e6 ? String(Math.round(pages)) : `${(pages / 1e6).toFixed(1)} M`
}
