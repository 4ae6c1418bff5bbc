import { fork } from 'node:child_process'
import { MemoryWatcher } from '../case/memory-samples.ts'
import { programPath } from '../program-path.ts'
import type { LargeFindings, LargeMessage, LargeOrder, LargePhase } from './protocol.ts'

/** Resident memory of the process, ordinary memory and mapped files, as its parent saw it. */
export interface LargeMemory {
  /** After the bench has loaded its modules and made its own memory, before there is a pool. */
  readonly baselineBytes: number
  readonly peakBytes: number
  /** Shared memory that was mapped: the store of a shared-memory backup. */
  readonly peakSharedBytes: number
}

/** Runs `large` in a process of its own, with the flags of this one and no others, and watches it. */
export async function startLarge(
  order: LargeOrder,
  signal: AbortSignal,
  onProgress: (phase: LargePhase, doneBytes: number) => void,
): Promise<{ readonly findings: LargeFindings; readonly memory: LargeMemory | undefined }> {
  signal.throwIfAborted()
  const child = fork(programPath('large-process'), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const kill = () => child.kill('SIGKILL')
  signal.addEventListener('abort', kill, { once: true })
  using watcher = new MemoryWatcher(child.pid ?? 0)
  let findings: LargeFindings | undefined
  let failure: string | undefined
  child.on('message', (message: LargeMessage) => {
    if (message.type === 'progress') onProgress(message.phase, message.doneBytes)
    else if (message.type === 'findings') findings = message.findings
    else if (message.type === 'failure') failure = message.message
    else {
      if (message.type === 'baseline') watcher.markBaseline()
      else watcher.noteHighWater()
      child.send('held')
    }
  })
  const ended = new Promise<string>((resolve) => {
    child.once('error', (problem) => resolve(problem.message))
    child.once('close', (code, signalName) => resolve(signalName ?? `exit status ${code}`))
  })
  child.send(order)
  const ending = await ended
  signal.removeEventListener('abort', kill)
  signal.throwIfAborted()
  if (findings === undefined) throw new Error(failure ?? `the process ended early (${ending})`)
  const { baselineBytes, peakBytes, peakSharedBytes } = watcher
  return { findings, memory: baselineBytes > 0 ? { baselineBytes, peakBytes, peakSharedBytes } : undefined }
}
