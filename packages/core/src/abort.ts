import { abortError } from './errors.ts'

/** Waits for what others may wait for, too: an abort ends this wait with `EINTR`, and nothing else. */
export async function orAbort<Result>(
  shared: Promise<Result>,
  signal: AbortSignal | undefined,
): Promise<Result> {
  if (signal === undefined) return await shared
  if (signal.aborted) throw abortError(signal)
  const { promise, reject } = Promise.withResolvers<never>()
  const abort = () => reject(abortError(signal))
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([shared, promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
