import { fork } from 'node:child_process'
import { programPath } from '../program-path.ts'
import type { LoopsMessage } from '../s3-process.ts'
import type { LoopsFindings, LoopsOrder } from './loops.ts'

/** Measures the loops in a process of their own. Rejects when they fail: without them the service's figures say nothing. */
export async function startLoops(order: LoopsOrder, signal: AbortSignal): Promise<LoopsFindings> {
  signal.throwIfAborted()
  const child = fork(programPath('s3-process'), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const kill = () => child.kill('SIGKILL')
  signal.addEventListener('abort', kill, { once: true })
  let last: LoopsMessage | undefined
  child.on('message', (message: LoopsMessage) => {
    last = message
  })
  const ended = new Promise<string>((resolve) => {
    child.once('error', (failure) => resolve(failure.message))
    child.once('close', (code, signalName) => resolve(signalName ?? `exit status ${code}`))
  })
  child.send(order)
  const ending = await ended
  signal.removeEventListener('abort', kill)
  signal.throwIfAborted()
  if (last?.type === 'loops') return last.findings
  throw new Error(`the loops of bare S3 calls failed: ${last?.message ?? ending}`)
}
