import type { RetryScope } from './retry.ts'

/** How a request is made. */
export interface RequestScope extends RetryScope {
  /** Not held back by the budget. */
  readonly free?: boolean | undefined
  /** Told what the answer's `Date` says, in milliseconds. */
  readonly onDate?: ((serviceMs: number) => void) | undefined
}
