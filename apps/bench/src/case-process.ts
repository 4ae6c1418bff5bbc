import { once } from 'node:events'
import { type CaseMessage, type CaseOrder, toldFailure } from './case/protocol.ts'
import { runCase } from './case/run-case.ts'

/**
 * Entry of the process that runs one case. It gets its order as the first message, tells its parent what happens, and ends
 * when it is done or when the parent is gone.
 */
function tell(message: CaseMessage): void {
  process.send?.(message)
}

async function turn(quiet: boolean): Promise<void> {
  tell({ type: 'turn', quiet })
  await held()
}

async function held(): Promise<void> {
  if (process.send !== undefined) await once(process, 'message')
}

// Ctrl-C reaches the whole group; the parent decides what happens then.
process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit(1))
process.once('message', (order: CaseOrder) => {
  runCase(order, { tell, held, turn }).then(
    (findings) => process.send?.({ type: 'findings', findings } satisfies CaseMessage, () => process.exit(0)),
    (failure: unknown) => {
      process.send?.({ type: 'failure', ...toldFailure(failure) } satisfies CaseMessage, () =>
        process.exit(1),
      )
    },
  )
})
