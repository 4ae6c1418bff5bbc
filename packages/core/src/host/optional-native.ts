import type { StagingBuffer } from '../staging.ts'
import { warn } from './warning.ts'

/** What is needed here of `@spillway/native`, whose other types only those know who can import it. */
export interface NativeExports {
  available(): { readonly available: boolean; readonly reason?: string }
  readonly Mapping: {
    anonymous(bytes: number): { view(offset: number, length: number): Uint8Array; close(): void }
  }
}

/** The optional package, or why it is not there. */
export interface LoadedNative<Module extends NativeExports> {
  readonly native: Module | undefined
  readonly whyNot: string
}

/** `@spillway/native` for those whose optional peer it is. */
export class OptionalNative<Module extends NativeExports> {
  readonly #import: () => Promise<Module>
  #loading: Promise<LoadedNative<Module>> | undefined
  #module: Module | undefined

  /** `importIt` is `() => import('@spillway/native')`, written in the package that names it as its peer. */
  constructor(importIt: () => Promise<Module>) {
    this.#import = importIt
  }

  /** Loads it, once unless what stood against it may pass. Never rejects. */
  load(): Promise<LoadedNative<Module>> {
    this.#loading ??= this.#load()
    return this.#loading
  }

  /** Memory that files are written from without a detour: mapped, where native code is loaded. */
  stagingMemory(bytes: number): StagingBuffer {
    if (this.#module === undefined) return { memory: new Uint8Array(bytes) }
    const mapping = this.#module.Mapping.anonymous(bytes)
    return { memory: mapping.view(0, bytes), close: () => mapping.close() }
  }

  async #load(): Promise<LoadedNative<Module>> {
    try {
      const native = await this.#import()
      const { available, reason } = native.available()
      if (available) {
        this.#module = native
        return { native, whyNot: '' }
      }
      // It remembers by itself what will not change.
      this.#loading = undefined
      return { native: undefined, whyNot: reason ?? 'not available here' }
    } catch (failure) {
      const { reason, isTransient } = explainNativeImport(failure)
      if (isTransient) this.#loading = undefined
      return { native: undefined, whyNot: reason }
    }
  }
}

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
