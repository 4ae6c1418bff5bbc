import { warn } from './warning.ts'

/** What an attempt to import the optional `@spillway/native` came to. */
export interface NativeImportFailure {
  /** Why, in a sentence. */
  readonly reason: string
  /** A lack of descriptors or memory: it may work the next time and must not be remembered. */
  readonly isTransient: boolean
}

const transientCodes: ReadonlySet<unknown> = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN'])
/** Loaders wrap the failure to open a file in errors of their own. */
const transientText = /too many open files|cannot allocate memory/i

let hasWarned = false

/**
 * Explains why `import('@spillway/native')` was rejected. Where the package is installed and does not load, the process is
 * warned once, with the reason: what falls back works, and is slower.
 */
export function explainNativeImport(failure: unknown): NativeImportFailure {
  const message = failure instanceof Error ? failure.message : String(failure)
  const code = (failure as { code?: unknown } | null)?.code
  const isTransient = transientCodes.has(code) || transientText.test(message)
  // Whoever cannot find the package quotes its name; a failure within it names files.
  const isInstalled = !/['"]@spillway\/native['"]/.test(message)
  const reason = isInstalled
    ? `@spillway/native cannot be loaded, though it is installed: ${message}`
    : '@spillway/native is not installed'
  if (isInstalled && !isTransient) warnOnce(reason)
  return { reason, isTransient }
}

function warnOnce(reason: string): void {
  if (hasWarned) return
  hasWarned = true
  warn('SPILLWAY_NATIVE_NOT_LOADED', reason)
}
