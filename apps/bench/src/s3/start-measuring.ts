import { fork } from 'node:child_process'
import { programPath } from '../program-path.ts'
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
  signal.throwIfAborted()
  const child = fork(programPath('s3-process'), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const kill = () => child.kill('SIGKILL')
  signal.addEventListener('abort', kill, { once: true })
  let last: S3Message | undefined
  child.on('message', async (message: S3Message) => {
    if (message.type !== 'setFaults') {
      last = message
      return
    }
    await server.setFaults?.(message.shares)
    if (child.connected) child.send({ type: 'faultsSet' } satisfies FaultsSet)
  })
  const ended = new Promise<string>((resolve) => {
    child.once('error', (failure) => resolve(failure.message))
    child.once('close', (code, signalName) => resolve(signalName ?? `exit status ${code}`))
  })
  child.send(order)
  const ending = await ended
  signal.removeEventListener('abort', kill)
  signal.throwIfAborted()
  if (last?.type === 'findings') return last.findings
  const reason = last?.type === 'failure' ? last.message : ending
  throw new Error(`the ${order.task} of S3 calls failed: ${reason}`)
}
