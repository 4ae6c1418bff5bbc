import { once } from 'node:events'
import type { LargeMessage, LargeOrder } from './large/protocol.ts'
import { runLarge } from './large/run-large.ts'

/** Entry of the process that `large` watches. Its order is the first message; it ends when it is done or its parent is gone. */
function tell(message: LargeMessage, sent = () => {}): void {
  process.send?.(message, sent)
}

async function held(): Promise<void> {
  await once(process, 'message')
}

// Ctrl-C reaches the whole group; the parent decides what happens then.
process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit(1))
process.once('message', (order: LargeOrder) => {
  runLarge(order, { tell, held }).then(
    (findings) => tell({ type: 'findings', findings }, () => process.exit(0)),
    (failure: unknown) => {
      const message = failure instanceof Error ? failure.message : String(failure)
      tell({ type: 'failure', message }, () => process.exit(1))
    },
  )
})
