import { yieldToEventLoop } from '../pace.ts'

/** What Node.js and others offer of a process; jest has a copy of it that events do not reach. */
interface Catching {
  readonly hasUncaughtExceptionCaptureCallback?: () => boolean
  readonly setUncaughtExceptionCaptureCallback?: (callback: ((error: unknown) => void) | null) => void
}

/** The exceptions that nobody caught while `body` ran; `undefined` where they cannot be caught here, and `body` did not run. */
export async function uncaughtDuring(body: () => Promise<void>): Promise<unknown[] | undefined> {
  const { hasUncaughtExceptionCaptureCallback, setUncaughtExceptionCaptureCallback } = process as Catching
  const isFree = hasUncaughtExceptionCaptureCallback?.() === false
  if (!isFree || setUncaughtExceptionCaptureCallback === undefined) return undefined
  const uncaught: unknown[] = []
  setUncaughtExceptionCaptureCallback((error) => uncaught.push(error))
  try {
    await body()
    await yieldToEventLoop()
  } finally {
    setUncaughtExceptionCaptureCallback(null)
  }
  return uncaught
}
