/** Where the memory of an evicted chunk goes. */
export type Destination = 'reuse' | 'idle' | 'system'

/** The same for a chunk that is being stored: `'stay'` leaves it in memory, clean, at the cold end. */
export type StoredDestination = Destination | 'stay'

export interface ResidentSetOptions {
  /** Check the rules of what each verb changes. */
  readonly checks?: boolean | undefined
  readonly onUnpin?: (() => void) | undefined
  /** Told when the last operation under way ended. */
  readonly onIdle?: (() => void) | undefined
}
