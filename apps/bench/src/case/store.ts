/** One touch of a workload: a range of one buffer, read or rewritten. */
export interface Touch {
  readonly buffer: number
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly write: boolean
}

/**
 * Looks at the memory of a touch, and changes it when the touch writes. Synchronous: the memory is only there while it
 * runs. The pieces are the touched range in order.
 */
export type Visit = (memory: readonly Uint8Array[]) => void

/** What a workload runs on: a Spillway pool, or one of the peers that do the same job by other means. */
export interface BufferStore extends AsyncDisposable {
  write(buffer: number, offsetBytes: number, bytes: Uint8Array): Promise<void>
  read(buffer: number, offsetBytes: number, into: Uint8Array): Promise<void>
  touch(touch: Touch, visit: Visit): Promise<void>
  /** Counters for the report: plain data. */
  stats(): unknown
}
