import {
  isErrorCode,
  isFullError,
  isSpillwayError,
  SpillwayError,
  type SpillwayErrorFields,
} from '@spillway/core'

/**
 * A failure with the place where it happened. Codes that the union knows are kept and the failure becomes the cause;
 * anything else is passed on as it is: nothing unknown is translated.
 */
export function located(failure: Error, doing: string, fields: SpillwayErrorFields): Error {
  const code = (failure as { code?: unknown }).code
  if (!isErrorCode(code)) return failure
  const retryable = isSpillwayError(failure) ? failure.retryable : undefined
  const where = [
    fields.buffer === undefined ? '' : ` buffer ${fields.buffer}`,
    fields.page === undefined ? '' : ` page ${fields.page}`,
    fields.backup === undefined ? '' : `, backup ${fields.backup}`,
  ].join('')
  // An abort's cause stays the reason of the signal, whoever noticed it.
  const cause = code === 'EINTR' && isSpillwayError(failure) ? failure.cause : failure
  return new SpillwayError(code, `${doing}${where}: ${reason(failure)}`, { ...fields, retryable, cause })
}

/** Pages are stored, and nobody can say where: an error, and no reason to look again and again. */
export function lost({ label }: { readonly label: string }): SpillwayError {
  return new SpillwayError('EIO', `buffer ${label} has stored pages and no backup`, { buffer: label })
}

/** Whether a backup says that it has no room. */
export function isFull(error: Error | undefined): boolean {
  return isFullError(error)
}

function reason(failure: Error): string {
  return failure.message.replace(/^E[A-Z]+: /, '')
}
