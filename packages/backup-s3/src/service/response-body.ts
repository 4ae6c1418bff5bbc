import { Readable } from 'node:stream'
import { SpillwayError, startTimer, stopTimer } from '@spillway/core'

export interface BodyReading {
  /** Longest silence, in milliseconds. */
  readonly silenceMs: number
  readonly signal: AbortSignal
  readonly onChunk: (chunk: Uint8Array) => void
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
 * Reads a body to its end, chunk by chunk. Rejects with `ETIMEDOUT` when it falls silent, with `EIO` when it breaks
 * off, with the signal's reason when that is aborted; the body is destroyed then, so that its socket is free.
 */
export function readBody(body: unknown, { silenceMs, signal, onChunk }: BodyReading): Promise<void> {
  const stream =
    body instanceof Readable ? body : Readable.fromWeb(body as Parameters<typeof Readable.fromWeb>[0])
  return new Promise((resolve, reject) => {
    const settle = (error?: unknown) => {
      stopTimer(timer)
      signal.removeEventListener('abort', onAbort)
      stream.removeAllListeners('data')
      // A destroyed stream may still report an error; nobody is interested any more.
      stream.on('error', () => {})
      if (error === undefined) return resolve()
      stream.destroy()
      reject(error)
    }
    const onAbort = () => settle(signal.reason)
    const timer = startTimer(() => {
      settle(new SpillwayError('ETIMEDOUT', `the body of the answer fell silent for ${silenceMs} ms`))
    }, silenceMs)
    if (signal.aborted) return settle(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    const brokeOff = (cause?: unknown) =>
      settle(new SpillwayError('EIO', 'the body of the answer broke off', { retryable: true, cause }))
    stream.on('data', (chunk: Uint8Array) => {
      timer.refresh?.()
      try {
        onChunk(chunk)
      } catch (error) {
        settle(error)
      }
    })
    stream.once('end', () => settle())
    stream.once('error', brokeOff)
    stream.once('close', () => brokeOff())
  })
}
