import { MeasuringProcess } from '../measuring-process.ts'
import type { FaultsSet, S3Message, S3Order } from '../s3-process.ts'
import type { LoopsFindings, LoopsOrder } from './loops.ts'
import type { MatrixFindings, MatrixOrder } from './matrix.ts'
import type { S3Server } from './server.ts'

/** Measures the loops in a process of their own. Rejects when they fail: without them the service's figures say nothing. */
export async function startLoops(
  order: Omit<LoopsOrder, 'task' | 'access'>,
  server: S3Server,
  signal: AbortSignal,
): Promise<LoopsFindings> {
  const { access } = server
  return (await startMeasuring({ task: 'loops', access, ...order }, server, signal)) as LoopsFindings
}

/** Measures the matrix of latencies and errors in a process of its own, on the embedded server. */
export async function startMatrix(
  order: Omit<MatrixOrder, 'task' | 'access'>,
  server: S3Server,
  signal: AbortSignal,
): Promise<MatrixFindings> {
  const { access } = server
  return (await startMeasuring({ task: 'matrix', access, ...order }, server, signal)) as MatrixFindings
}

async function startMeasuring(
  order: S3Order,
  server: S3Server,
  signal: AbortSignal,
): Promise<LoopsFindings | MatrixFindings> {
  const measuring = new MeasuringProcess<S3Order, S3Message>('s3-process', signal)
  let last: S3Message | undefined
  measuring.onMessage(async (message) => {
    if (message.type !== 'setFaults') {
      last = message
      return
    }
    await server.setFaults?.(message.shares)
    measuring.send({ type: 'faultsSet' } satisfies FaultsSet)
  })
  const ending = await measuring.run(order)
  if (last?.type === 'findings') return last.findings
  const reason = last?.type === 'failure' ? last.message : ending
  throw new Error(`the ${order.task} of S3 calls failed: ${reason}`)
}
