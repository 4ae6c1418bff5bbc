import { abortError } from '@spillway/core'

/** Waits for a promise that never rejects, or for the signal. */
export async function settledOrAborted(
  settled: Promise<void>,
  signal: AbortSignal | undefined,
  buffer?: string,
): Promise<void> {
  if (signal === undefined) return settled
  if (signal.aborted) throw abortError(signal, { buffer })
  const { promise, reject } = Promise.withResolvers<never>()
  const abort = () => reject(abortError(signal, { buffer }))
  signal.addEventListener('abort', abort, { once: true })
  try {
    await Promise.race([settled, promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
