import { type LoopsFindings, type LoopsOrder, measureLoops } from './s3/loops.ts'

export type LoopsMessage =
  | { readonly type: 'loops'; readonly findings: LoopsFindings }
  | { readonly type: 'failure'; readonly message: string }

/** Entry of the process that moves bytes to and from an S3 service, so that its processor time is of nothing else. */
process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit(1))
process.once('message', (order: LoopsOrder) => {
  measureLoops(order).then(
    (findings) => tell({ type: 'loops', findings }, 0),
    (failure: Error) => tell({ type: 'failure', message: failure.message }, 1),
  )
})

function tell(message: LoopsMessage, status: number): void {
  process.send?.(message, () => process.exit(status))
}
