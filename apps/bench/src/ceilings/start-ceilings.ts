import { fork } from 'node:child_process'
import { programPath } from '../program-path.ts'
import type { CeilingFindings, CeilingMessage, CeilingOrder } from './measure.ts'

/** Measures the ceilings in a process of its own. What fails there is a note, not a failure: cases can do without. */
export async function startCeilings(
  order: CeilingOrder,
  signal: AbortSignal,
  onStep: (step: string) => void,
): Promise<CeilingFindings> {
  signal.throwIfAborted()
  const child = fork(programPath('ceilings-process'), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const kill = () => child.kill('SIGKILL')
  signal.addEventListener('abort', kill, { once: true })
  let findings: CeilingFindings | undefined
  let problem = ''
  child.on('message', (message: CeilingMessage) => {
    if (message.type === 'step') onStep(message.step)
    else if (message.type === 'ceilings') findings = message.findings
    else problem = message.message
  })
  const ended = new Promise<string>((resolve) => {
    child.once('error', (failure) => resolve(failure.message))
    child.once('close', (code, signalName) => resolve(signalName ?? `exit status ${code}`))
  })
  child.send(order)
  const ending = await ended
  signal.removeEventListener('abort', kill)
  signal.throwIfAborted()
  return findings ?? { rounds: {}, notes: [`the ceilings were not measured: ${problem || ending}`] }
}
