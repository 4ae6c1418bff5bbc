import { Readable } from 'node:stream'
import { nowMs, SpillwayError } from '@spillway/core'
import {
  type BodyPaceLimits,
  type Deadline,
  nextBytesDueAt,
  notWatched,
  unwatch,
  watch,
} from '../http/deadlines.ts'

export interface BodyReading extends BodyPaceLimits {
  readonly signal: AbortSignal
  readonly onChunk: (chunk: Buffer) => void
}

/** Ends a body that nobody reads, so that its socket is free and an error that it reports later ends no process. */
export function discardBody(body: unknown): void {
  if (body instanceof Readable) {
    body.on('error', () => {})
    body.destroy()
  } else if (body instanceof ReadableStream) {
    body.cancel().catch(() => {})
  }
}

/**
 * Reads a body to its end, chunk by chunk. Rejects with `ETIMEDOUT` when it falls silent or comes too slowly, with
 * `EIO` when it breaks off, with the signal's reason when that is aborted; the body is destroyed then, so that its
 * socket is free.
 */
export function readBody(body: unknown, reading: BodyReading): Promise<void> {
  const { silenceMs, minBytesPerSecond, signal, onChunk } = reading
  const stream =
    body instanceof Readable ? body : Readable.fromWeb(body as Parameters<typeof Readable.fromWeb>[0])
  return new Promise((resolve, reject) => {
    const settle = (error?: unknown) => {
      unwatch(silence)
      signal.removeEventListener('abort', onAbort)
      stream.removeAllListeners('data')
      // A destroyed stream may still report an error; nobody is interested any more.
      stream.on('error', () => {})
      if (error === undefined) return resolve()
      stream.destroy()
      reject(error)
    }
    const onAbort = () => settle(signal.reason)
    const silence: Deadline = {
      dueAt: nowMs() + silenceMs,
      place: notWatched,
      onDue: () => {
        const text = `the body of the answer fell silent for ${silenceMs} ms, or came at less than ${minBytesPerSecond} bytes a second`
        settle(new SpillwayError('ETIMEDOUT', text))
      },
    }
    if (signal.aborted) return settle(signal.reason)
    watch(silence)
    signal.addEventListener('abort', onAbort, { once: true })
    const brokeOff = (cause?: unknown) =>
      settle(new SpillwayError('EIO', 'the body of the answer broke off', { retryable: true, cause }))
    stream.on('data', (chunk: Uint8Array) => {
      silence.dueAt = nextBytesDueAt(silence.dueAt, chunk.byteLength, nowMs(), reading)
      try {
        onChunk(
          Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength),
        )
      } catch (error) {
        settle(error)
      }
    })
    stream.once('end', () => settle())
    stream.once('error', brokeOff)
    stream.once('close', () => brokeOff())
  })
}
