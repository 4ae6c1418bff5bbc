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
  const rounds: Record<string, readonly number[]> = {}
  const notes: string[] = []
  if (order.memory) {
    step('memory copies')
    Object.assign(rounds, await measureMemoryCopies(order, notes))
  }
  if (order.files) {
    step('raw file I/O')
    Object.assign(rounds, await measureRawFile(order, notes))
    step('fio')
    Object.assign(rounds, await measureFio(order, notes))
  }
  return { rounds, notes }
}
