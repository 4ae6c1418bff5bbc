/**
 * How the body of a GET reaches the memory it is for. The backup passes a sink along with the request, under the
 * symbol below; `pageHttpHandler()` reads straight into its memory. Other handlers do not know of it, and the backup
 * then copies their stream's chunks.
 */
export interface ResponseHead {
  readonly status: number
  readonly contentRange: string | undefined
  readonly contentLength: number | undefined
}

export interface ResponseSink {
  /** Takes the head of a successful answer. False: the body is not wanted, end the connection. */
  begin(head: ResponseHead): boolean
  /** Memory for the next bytes, to be filled from its start; undefined: none large enough, use `write`. */
  memory(): Uint8Array | undefined
  /** So many bytes were put into what `memory` returned last. */
  filled(bytes: number): void
  /** Takes the next bytes by copying them: those of `bytes` from `from` to `end`. */
  write(bytes: Buffer, from: number, end: number): void
  /** Whether every byte has come. */
  readonly isComplete: boolean
}

export const responseSink = Symbol.for('spillway.s3.response-sink')

/** What the backup hands to the client's request handler, next to the SDK's own options. */
export interface PageRequestOptions {
  readonly [responseSink]?: ResponseSink
  readonly connectTimeoutMs?: number
  /** Longest silence within the body. */
  readonly bodyTimeoutMs?: number
  /** Least rate of the body. */
  readonly minBytesPerSecond?: number
  /** Asked before a request goes out once more, on another connection. False: the budget has no room for it. */
  readonly mayRepeat?: () => boolean
}
