import { MemoryWatcher } from '../case/memory-samples.ts'
import { MeasuringProcess } from '../measuring-process.ts'
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
  const large = new MeasuringProcess<LargeOrder, LargeMessage>('large-process', signal)
  using watcher = new MemoryWatcher(large.pid)
  let findings: LargeFindings | undefined
  let failure: string | undefined
  large.onMessage((message) => {
    if (message.type === 'progress') onProgress(message.phase, message.doneBytes)
    else if (message.type === 'findings') findings = message.findings
    else if (message.type === 'failure') failure = message.message
    else {
      if (message.type === 'baseline') watcher.markBaseline()
      else watcher.noteHighWater()
      large.send('held')
    }
  })
  const ending = await large.run(order)
  if (findings === undefined) throw new Error(failure ?? `the process ended early (${ending})`)
  const { baselineBytes, peakBytes, peakSharedBytes } = watcher
  return { findings, memory: baselineBytes > 0 ? { baselineBytes, peakBytes, peakSharedBytes } : undefined }
}
