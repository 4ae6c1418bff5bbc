import type * as Native from '@spillway/native'

/** The optional peer, or why it is not there. */
export interface NativeModule {
  readonly native: typeof Native | undefined
  readonly whyNot: string
}

let loaded: Promise<NativeModule> | undefined

/** Loads `@spillway/native` once. Never rejects. */
export function loadNative(): Promise<NativeModule> {
  loaded ??= import('@spillway/native').then(
    (native) => {
      const { available, reason } = native.available()
      return available
        ? { native, whyNot: '' }
        : { native: undefined, whyNot: reason ?? 'not available here' }
    },
    (failure) => ({ native: undefined, whyNot: `@spillway/native cannot be loaded: ${messageOf(failure)}` }),
  )
  return loaded
}

export function messageOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure)
}
