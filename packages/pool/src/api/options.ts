export interface AccessOptions {
  /** Stops the call before its next piece of work: `EINTR`. What it did so far stays done. */
  readonly signal?: AbortSignal | undefined
}

export interface ReadWriteOptions extends AccessOptions {
  /**
   * Fail at once rather than try again when the backup fails in a way that may pass (T22, T45). Default false: such a
   * failure is tried again for about 0.6 s before the call is refused, and any other once more if it is older than the call.
   */
  readonly retryMayFail?: boolean | undefined
}

export interface RangeOptions extends AccessOptions {
  /** First byte. Default 0. */
  readonly offset?: number | undefined
  /** Number of bytes. Default: up to the buffer's end. */
  readonly length?: number | undefined
}

export interface PurgeOptions {
  /** First byte, a multiple of the page size. Default 0. */
  readonly offset?: number | undefined
  /** Number of bytes, whole pages. Default: up to the buffer's end. */
  readonly length?: number | undefined
}

/** How far a long call over a range of bytes is. */
export interface BytesProgress {
  /** Bytes done so far by this call. */
  readonly bytes: number
  /** Bytes of the range. */
  readonly totalBytes: number
}

export interface RangeAccessOptions extends RangeOptions, ReadWriteOptions {}

export interface FillOptions extends RangeAccessOptions {
  /** Told after each piece, about every mebibyte. What it throws ends the call. */
  readonly onProgress?: ((progress: BytesProgress) => void) | undefined
}

export interface CopyOptions extends FillOptions {
  /** Where the first byte goes in the target. Default 0. */
  readonly targetOffset?: number | undefined
}

export interface PiecesOptions extends RangeAccessOptions {
  /** Size of each piece but the last. Default 1 MiB. */
  readonly pieceBytes?: number | undefined
}

export interface PinOptions extends RangeAccessOptions {
  /**
   * The memory will be written to. Default false: pages that are only read keep their stored copy, and what is written to them all the
   * same may be lost, which `debug: true` reports.
   */
  readonly write?: boolean | undefined
}

/** What the application expects to do with a buffer. */
export type Advice = 'normal' | 'random' | 'sequential' | 'willneed' | 'dontneed' | 'purgeable'

/** All of them. */
export const advices: readonly Advice[] = [
  'normal',
  'random',
  'sequential',
  'willneed',
  'dontneed',
  'purgeable',
]
/** The options that `pin` knows. */
export const pinOptions: ReadonlySet<string> = new Set([
  'offset',
  'length',
  'write',
  'signal',
  'retryMayFail',
])
