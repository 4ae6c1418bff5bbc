/**
 * Where the memory of an evicted chunk goes: to who is about to take it, to the free lists as far as these may be filled, to
 * the system at once, or to the system unless somebody takes it within a moment.
 */
export type Destination = 'reuse' | 'idle' | 'system' | 'retained'

/** The same for a chunk that is being stored: `'stay'` leaves it in memory, clean, at the cold end. */
export type StoredDestination = Destination | 'stay'

export interface ResidentSetOptions {
  /** Check the rules of what each verb changes. */
  readonly checks?: boolean | undefined
  readonly onUnpin?: (() => void) | undefined
  /** Told when the last operation under way ended. */
  readonly onIdle?: (() => void) | undefined
}
