import { explainNativeImport, type StagingBuffer } from '@spillway/core'
import type * as Native from '@spillway/native'

export type NativeModule = typeof Native

let native: NativeModule | undefined

/** The optional peer, loaded once; `undefined` where it is not there or does not work. Never rejects. */
export async function loadNative(): Promise<NativeModule | undefined> {
  if (native !== undefined) return native
  try {
    const loaded = await import('@spillway/native')
    if (loaded.available().available) native = loaded
  } catch (failure) {
    explainNativeImport(failure)
  }
  return native
}

/** Memory that files are written from without a detour: mapped, where native code is loaded. */
export function stagingMemory(bytes: number): StagingBuffer {
  if (native === undefined) return { memory: new Uint8Array(bytes) }
  const mapping = native.Mapping.anonymous(bytes)
  return { memory: mapping.view(0, bytes), close: () => mapping.close() }
}
