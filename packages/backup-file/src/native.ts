import { type LoadedNative, OptionalNative } from '@spillway/core'
import type * as Native from '@spillway/native'

/** The optional peer, or why it is not there. */
export type NativeModule = LoadedNative<typeof Native>

export const optionalNative = new OptionalNative(() => import('@spillway/native'))

export function messageOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure)
}
