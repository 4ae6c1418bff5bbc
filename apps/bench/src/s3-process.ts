import { type LoopsFindings, type LoopsOrder, measureLoops } from './s3/loops.ts'
import { type MatrixFindings, type MatrixOrder, measureMatrix } from './s3/matrix.ts'
import type { FaultShares } from './s3/server.ts'

export type S3Order = LoopsOrder | MatrixOrder

export type S3Message =
  | { readonly type: 'findings'; readonly findings: LoopsFindings | MatrixFindings }
  /** The server is the parent's: it sets the faults and answers `FaultsSet`. */
  | { readonly type: 'setFaults'; readonly shares: FaultShares }
  | { readonly type: 'failure'; readonly message: string }

export interface FaultsSet {
  readonly type: 'faultsSet'
}

/**
 * Entry of the process that moves bytes to and from an S3 service, so that its processor time is of nothing else:
 *
 *   ◀── S3Order     setFaults ──▶ (once for each cell of the matrix)     ◀── faultsSet     findings or failure ──▶
 */
process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit(1))
process.once('message', (order: S3Order) => {
  const work = order.task === 'loops' ? measureLoops(order) : measureMatrix(order, setFaults)
  work.then(
    (findings) => tell({ type: 'findings', findings }, 0),
    (failure: Error) => tell({ type: 'failure', message: failure.message }, 1),
  )
})

function setFaults(shares: FaultShares): Promise<void> {
  return new Promise((resolve) => {
    process.once('message', () => resolve())
    process.send?.({ type: 'setFaults', shares } satisfies S3Message)
  })
}

function tell(message: S3Message, status: number): void {
  process.send?.(message, () => process.exit(status))
}
