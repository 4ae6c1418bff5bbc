import { OptionalNative } from '@spillway/core'

export const optionalNative = new OptionalNative(() => import('@spillway/native'))
