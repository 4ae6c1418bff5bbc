import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'

/** What every failed system call here is thrown as; the same fields as the errors of `node:fs`. */
export interface NativeError extends Error {
  /** Name of the errno, for example `'ENOSPC'`. */
  readonly code: string
  /** The errno as Node gives it: negative. */
  readonly errno: number
  readonly syscall: string
}

const nativeError = (code: string, errno: number, syscall: string, message: string): NativeError =>
  Object.assign(new Error(`${code}: ${message}, ${syscall}`), { code, errno: -errno, syscall })

/** The error for `errno` (positive, as C has it) of `syscall`; `detail` says what was tried. */
export function systemError(errno: number, syscall: string, detail?: string): NativeError {
  const [code, description] = described(errno)
  return nativeError(code, errno, syscall, detail === undefined ? description : `${description} (${detail})`)
}

/** Name and text of an errno. Libuv lacks some that file systems report, and speaks of sockets where it means everything. */
function described(errno: number): readonly [string, string] {
  if (errno === constants.errno.EOPNOTSUPP) return ['EOPNOTSUPP', 'operation not supported here']
  const known = getSystemErrorMap().get(-errno)
  if (known !== undefined) return known
  const name = Object.entries(constants.errno).find(([, number]) => number === errno)?.[0]
  return name === undefined ? [`E${errno}`, 'unknown system error'] : [name, `system error ${errno}`]
}

/** Linux's number of ENOSYS; this package has nothing to offer where it is another. */
const enosys = 38

/** The error for something that this platform cannot do, and why. */
export function missing(syscall: string, reason: string): NativeError {
  return nativeError('ENOSYS', enosys, syscall, reason)
}

const transientCodes: ReadonlySet<unknown> = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN'])

/** Whether a failure is a lack of descriptors or memory that may pass, so that nothing may be concluded from it. */
export function isTransient(failure: unknown): boolean {
  if (transientCodes.has((failure as { code?: unknown } | null)?.code)) return true
  // Loaders wrap the failure to open a file in errors of their own.
  return failure instanceof Error && /too many open files|cannot allocate memory/i.test(failure.message)
}

/** Native code cannot be loaded now because the process has no descriptor left. */
export function outOfDescriptors(cause: unknown): NativeError {
  const message = `native code cannot be loaded now: ${cause instanceof Error ? cause.message : String(cause)}`
  return Object.assign(nativeError('EMFILE', constants.errno.EMFILE, 'dlopen', message), { cause })
}
