import { pace, smallCallBytes } from '@spillway/core'

/**
 * Makes a call of the application, which may be one of a loop that waits for nothing else: the event loop gets its turn before
 * the call settles, well or not, when such calls have held it long enough. `workBytes` is what the call copies.
 */
export async function pacedCall<Result>(
  work: () => Result | Promise<Result>,
  workBytes = smallCallBytes,
): Promise<Result> {
  try {
    return await work()
  } finally {
    const turn = pace(workBytes)
    if (turn !== undefined) await turn
  }
}
