import { errnoName, type SystemErrorCode, systemErrorCodes } from './errno.ts'

/**
 * Every reason for which Spillway stops, named after errno where one fits. The union is closed and codes are stable
 * between major versions; messages are not. Other errors of the system keep their own names (`SystemErrorCode`).
 *
 * - `EACCES`, `EPERM`  the system or the service refuses the permission
 * - `EAGAIN`           throttled or momentarily out of a resource; worth trying again later
 * - `EBADF`            the backup, buffer, pool or pin is closed
 * - `EBADMSG`          stored bytes do not match their checksum; the page is quarantined and never returned as data
 * - `EBUSY`            someone else holds what is needed (a pin, a lock, live handles)
 * - `EDQUOT`           a budget or quota that was set is used up
 * - `EEXIST`           the name is taken
 * - `EFAULT`           memory could not be mapped for a device, or an address is not one of ours
 * - `EFBIG`            larger than the medium can address, or a buffer may grow
 * - `EINTR`            aborted by a signal; `cause` is the signal's reason; the call may be repeated and goes on
 * - `EINVAL`           not possible in this state
 * - `EIO`              the medium failed
 * - `EMFILE`           out of file descriptors
 * - `ENOENT`           not there
 * - `ENOMEM`           no memory within the limit
 * - `ENOSPC`           the medium is full
 * - `ENOSYS`           this platform or backup cannot do that
 * - `EROFS`            the medium is read-only
 * - `ESTALE`           the handle is not live: dropped, or of another backup
 * - `ETIMEDOUT`        no answer in time
 */
export const errorCodes = [
  'EACCES',
  'EAGAIN',
  'EBADF',
  'EBADMSG',
  'EBUSY',
  'EDQUOT',
  'EEXIST',
  'EFAULT',
  'EFBIG',
  'EINTR',
  'EINVAL',
  'EIO',
  'EMFILE',
  'ENOENT',
  'ENOMEM',
  'ENOSPC',
  'ENOSYS',
  'EPERM',
  'EROFS',
  'ESTALE',
  'ETIMEDOUT',
] as const

export type ErrorCode = (typeof errorCodes)[number] | SystemErrorCode

/** Where it happened; all fields optional, all plain data. */
export interface SpillwayErrorFields {
  readonly cause?: unknown
  /**
   * Whether the same call may succeed later though its caller changes nothing: others let go of what they hold, or a medium has room or
   * answers again. Default: by the code.
   */
  readonly retryable?: boolean | undefined
  /** Name of the backup. */
  readonly backup?: string | undefined
  /** Label of the buffer. */
  readonly buffer?: string | undefined
  /** Page within the buffer or the call, from 0. */
  readonly page?: number | undefined
  /** The handle in question. */
  readonly handle?: number | undefined
  /** Byte offset in the medium. */
  readonly offsetBytes?: number | undefined
}

const brand = Symbol.for('spillway.error')
const retryableCodes: ReadonlySet<ErrorCode> = new Set([
  'EAGAIN',
  'EBUSY',
  'EDQUOT',
  'EINTR',
  'ENOMEM',
  'ENOSPC',
  'ETIMEDOUT',
])
const knownCodes: ReadonlySet<string> = new Set<string>([...errorCodes, ...systemErrorCodes])

/**
 * The one error class. Decide on `code`, never on `message`. With the code `EINTR` its name is `AbortError`, as of all errors by which
 * the platform says that a call was aborted, unless its cause is a call of the system that was interrupted.
 */
export class SpillwayError extends Error {
  override readonly name: 'SpillwayError' | 'AbortError'
  readonly code: ErrorCode
  /** Whether the same call may succeed later though its caller changes nothing: it is worth repeating after a while. */
  readonly retryable: boolean
  readonly backup: string | undefined
  readonly buffer: string | undefined
  readonly page: number | undefined
  readonly handle: number | undefined
  readonly offsetBytes: number | undefined

  constructor(code: ErrorCode, message: string, fields: SpillwayErrorFields = {}) {
    super(`${code}: ${message}`, fields.cause === undefined ? undefined : { cause: fields.cause })
    this.name = code === 'EINTR' && !isInterruptedCall(fields.cause) ? 'AbortError' : 'SpillwayError'
    this.code = code
    this.retryable = fields.retryable ?? retryableCodes.has(code)
    this.backup = fields.backup
    this.buffer = fields.buffer
    this.page = fields.page
    this.handle = fields.handle
    this.offsetBytes = fields.offsetBytes
    Object.defineProperty(this, brand, { value: true })
  }
}

/** Whether `value` is a `SpillwayError`, of this or of another installed copy of this package. */
export function isSpillwayError(value: unknown): value is SpillwayError {
  return typeof value === 'object' && value !== null && brand in value
}

/** Whether `code` belongs to the closed union. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && knownCodes.has(code)
}

/** `EINTR` for a signal that was aborted; `cause` is its reason. */
export function abortError(signal: AbortSignal, fields: SpillwayErrorFields = {}): SpillwayError {
  return new SpillwayError('EINTR', 'aborted by the caller', { ...fields, cause: signal.reason })
}

/** Whether a failure says that the system interrupted a call, not that the caller aborted one. */
function isInterruptedCall(failure: unknown): boolean {
  return systemCodeOf(failure) === 'EINTR' && (failure as Error).name !== 'AbortError'
}

/** Whether a failure says that there is no room: the medium is full, a quota is used up, or the medium can address no more. */
export function isFullError(failure: unknown): boolean {
  const code = systemCodeOf(failure)
  return code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG'
}

/**
 * The name of the errno that a failure of the system carries, whether Node has a name for it or not. `EIO` for a number that has
 * none on this platform, `undefined` for what is no failure of the system.
 */
export function systemCodeOf(failure: unknown): ErrorCode | undefined {
  if (typeof failure !== 'object' || failure === null) return undefined
  const { code, errno } = failure as { code?: unknown; errno?: unknown }
  if (isErrorCode(code)) return code
  if (typeof errno !== 'number' || errno === 0) return undefined
  const name = errnoName(errno)
  return isErrorCode(name) ? name : 'EIO'
}

/**
 * The error to report for a failure of the system: a `SpillwayError` with the system's own code and `fields`, and the failure as its
 * cause. What is no failure of the system is passed on as it is: nothing unknown is translated.
 */
export function systemError(failure: unknown, message: string, fields: SpillwayErrorFields = {}): Error {
  if (isSpillwayError(failure)) return failure
  const code = systemCodeOf(failure)
  if (code !== undefined) return new SpillwayError(code, message, { ...fields, cause: failure })
  return failure instanceof Error ? failure : new Error(String(failure))
}

/** `ESTALE`: the handle is not live in this backup. */
export function staleHandleError(backup: string, handle: number): SpillwayError {
  return new SpillwayError('ESTALE', `handle ${handle} is not live in backup ${backup}`, { backup, handle })
}
