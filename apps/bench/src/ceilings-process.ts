import { type CeilingMessage, type CeilingOrder, measureCeilings } from './ceilings/measure.ts'

/** Entry of the process that measures the ceilings. */
process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit(1))
process.once('message', (order: CeilingOrder) => {
  measureCeilings(order, (step) => tell({ type: 'step', step })).then(
    (findings) => tell({ type: 'ceilings', findings }, () => process.exit(0)),
    (failure: Error) => tell({ type: 'failure', message: failure.message }, () => process.exit(1)),
  )
})

function tell(message: CeilingMessage, then: () => void = () => {}): void {
  process.send?.(message, then)
}
