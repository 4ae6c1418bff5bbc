import { explainNativeImport } from '@spillway/core'
import type * as Native from '@spillway/native'

/** The optional peer, or why it is not there. */
export interface NativeModule {
  readonly native: typeof Native | undefined
  readonly whyNot: string
}

let loaded: Promise<NativeModule> | undefined

/** Loads `@spillway/native`, once unless what stood against it may pass. Never rejects. */
export function loadNative(): Promise<NativeModule> {
  loaded ??= importNative()
  return loaded
}

async function importNative(): Promise<NativeModule> {
  try {
    const native = await import('@spillway/native')
    const { available, reason } = native.available()
    if (available) return { native, whyNot: '' }
    // It remembers by itself what will not change.
    loaded = undefined
    return { native: undefined, whyNot: reason ?? 'not available here' }
  } catch (failure) {
    const { reason, isTransient } = explainNativeImport(failure)
    if (isTransient) loaded = undefined
    return { native: undefined, whyNot: reason }
  }
}

export function messageOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure)
}
