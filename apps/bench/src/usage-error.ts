/** What the person at the command line got wrong: one line that names the value and says what would be right. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** The one line for any failure: its message, without a stack. */
export function failureLine(failure: unknown): string {
  // What went wrong first says more than what then could not be tidied up because of it.
  if (failure instanceof Error && 'suppressed' in failure) return failureLine(failure.suppressed)
  const message = failure instanceof Error ? failure.message : String(failure)
  return message.split('\n')[0]
}
