import { affordableShare } from '../case/case-budget.ts'
import { mebibyte } from '../sizes.ts'
import { measureFio } from './fio.ts'
import { measureMemoryCopies } from './memory-copy.ts'
import { measureRawFile } from './raw-file.ts'

/** What the process of the ceilings is told to do. */
export interface CeilingOrder {
  readonly directory: string
  readonly rounds: number
  /** Bytes that each ceiling moves in a round. */
  readonly setBytes: number
  readonly requestBytes: number
  readonly depth: number
  /** Time for all of it: sets become smaller when it is short. Undefined: as long as it takes. */
  readonly budgetMs: number | undefined
  /** Whether memory, or files, are to be measured at all. */
  readonly memory: boolean
  readonly files: boolean
}

/** Figures of every round by name; bytes per second, for `fioRandom…` reads per second. */
export interface CeilingFindings {
  readonly rounds: Readonly<Record<string, readonly number[]>>
  /** What could not be measured, and why. */
  readonly notes: readonly string[]
}

export type CeilingMessage =
  | { readonly type: 'step'; readonly step: string }
  | { readonly type: 'ceilings'; readonly findings: CeilingFindings }
  | { readonly type: 'failure'; readonly message: string }

/**
 * Measures what this machine can do at most, with the same sizes and depths as the backends, in a process of its own and
 * in the same run.
 */
export async function measureCeilings(
  order: CeilingOrder,
  step: (name: string) => void,
): Promise<CeilingFindings> {
  const endMs = performance.now() + (order.budgetMs ?? Number.POSITIVE_INFINITY)
  const rounds: Record<string, readonly number[]> = {}
  const notes: string[] = []
  if (order.memory) {
    step('memory copies')
    Object.assign(rounds, await measureMemoryCopies(order, notes))
  }
  if (order.files) {
    step('raw file I/O')
    Object.assign(rounds, await measureRawFile(order, (endMs - performance.now()) / 3, notes))
    step('fio')
    Object.assign(rounds, await measureFio(order, endMs - performance.now(), notes))
  }
  return { rounds, notes }
}

/** Sets smaller than this would measure how requests begin and end. */
const leastSetBytes = 32 * mebibyte

/** The order with a set that fits into the time, when one round of the whole set took `roundMs`. */
export function affordableOrder(
  order: CeilingOrder,
  allowedMs: number,
  roundMs: number,
  notes: string[],
  name: string,
): CeilingOrder {
  const share = affordableShare(allowedMs, roundMs * order.rounds)
  const requests = Math.round((share * order.setBytes) / order.requestBytes)
  const setBytes = Math.min(order.setBytes, Math.max(leastSetBytes, requests * order.requestBytes))
  if (setBytes === order.setBytes) return order
  notes.push(
    `${name} was measured with ${setBytes / mebibyte} MiB a round to stay within the time (--budget)`,
  )
  return { ...order, setBytes }
}
