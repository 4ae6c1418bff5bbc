import { SpillwayError } from '@spillway/core'
import type { DataDescriptor } from './direct-io.ts'
import type { Engine, EngineName } from './engine.ts'
import type { Files } from './file-system.ts'
import { messageOf, type NativeModule } from './native.ts'
import { ThreadsEngine } from './threads-engine.ts'
import { UringEngine } from './uring-engine.ts'

/** The engine, and why it and not the other. */
export interface ChosenEngine {
  readonly engine: Engine
  readonly reason: string
}

/** `'auto'` takes io_uring when a request through it works, else threads. `'uring'` rejects with `ENOSYS` when it does not. */
export async function chooseEngine(
  files: Files,
  data: DataDescriptor,
  wanted: 'auto' | EngineName,
  pageSizeBytes: number,
  loaded: NativeModule,
): Promise<ChosenEngine> {
  const threads = (reason: string): ChosenEngine => ({
    engine: new ThreadsEngine(files.fileSystem, data, loaded.native),
    reason,
  })
  if (wanted === 'threads') return threads("io: 'threads'")
  if (!files.isSystem) return threads('the file system is injected')
  try {
    const engine = await openUring(data, pageSizeBytes, loaded)
    return { engine, reason: wanted === 'uring' ? "io: 'uring'" : 'io_uring works here' }
  } catch (failure) {
    const reason = `io_uring does not work here: ${messageOf(failure)}`
    if (wanted === 'uring') throw new SpillwayError('ENOSYS', reason, { cause: failure })
    return threads(reason)
  }
}

/** Opens a ring and reads through it once. */
async function openUring(
  data: DataDescriptor,
  pageSizeBytes: number,
  { native, whyNot }: NativeModule,
): Promise<Engine> {
  if (native === undefined) throw new Error(whyNot)
  const engine = new UringEngine(native, data)
  const memory = native.Mapping.anonymous(pageSizeBytes)
  try {
    await engine.read(memory.view(0, pageSizeBytes), 0)
    return engine
  } catch (failure) {
    await engine.close()
    throw failure
  } finally {
    memory.close()
  }
}
