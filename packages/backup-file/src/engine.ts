/**
 * Moves bytes between memory and one file. Two of them: `threads` (node:fs, everywhere) and `uring` (io_uring through
 * @spillway/native). An engine takes any number of requests and starts as many of them at once as it may.
 */
export interface Engine {
  readonly name: EngineName
  /** Large requests worth having under way at once, and small ones. */
  readonly largeRequests: number
  readonly smallRequests: number
  /** Whether requests may name this memory; other memory goes through a staging buffer. */
  takes(memory: Uint8Array): boolean
  /** Resolves to the bytes moved, which may be fewer; rejects with an error whose `code` is the errno's name. */
  read(into: Uint8Array, offsetBytes: number): Promise<number>
  write(from: Uint8Array, offsetBytes: number): Promise<number>
  /**
   * As `read`, without a promise: `done` gets the bytes moved, which may be fewer, or the error. False: not for a request of this
   * size, or not any more; nothing was begun.
   */
  readThen(into: Uint8Array, offsetBytes: number, done: (outcome: number | Error) => void): boolean
  /** Waits for nothing: its owner sees to it that no request is under way. */
  close(): Promise<void>
}

export type EngineName = 'uring' | 'threads'
