import { SpillwayError } from '@spillway/core'
import { MmapProvider } from './mmap.ts'
import type { PageProvider } from './provider.ts'
import { ResizableProvider } from './resizable.ts'

/**
 * Finds the provider that serves a pool (T81). Providers that an application registers are asked first, the latest
 * before the earlier ones, then `mmap`, then `resizable`; the first whose `probe` says yes serves all memory from then
 * on. A provider that is unregistered serves no new pool; pools that have it keep it, and give its blocks back to it.
 */
export class ProviderRegistry {
  readonly #registered: PageProvider[] = []

  /** Adds a provider before all others; returns what takes it out again. */
  register(provider: PageProvider): () => void {
    assertProvider(provider)
    this.#registered.unshift(provider)
    return () => {
      const index = this.#registered.indexOf(provider)
      if (index >= 0) this.#registered.splice(index, 1)
    }
  }

  /** The first provider that probes well, and whether it was made for the caller, who then closes it. Rejects with `ENOSYS` when none does; `cause` is the last probe's failure. */
  async select(): Promise<{ readonly provider: PageProvider; readonly made: boolean }> {
    let failure: unknown
    const builtIn = [new MmapProvider(), new ResizableProvider()]
    for (const provider of [...this.#registered, ...builtIn]) {
      try {
        if (await provider.probe()) return { provider, made: !this.#registered.includes(provider) }
      } catch (thrown) {
        failure = thrown
      }
    }
    throw new SpillwayError('ENOSYS', 'no page provider works here', { cause: failure })
  }
}

/** The registry that pools use unless they are given one. */
export const providerRegistry = new ProviderRegistry()

/** A built-in provider by name. */
export function builtInProvider(name: 'mmap' | 'resizable'): PageProvider {
  return name === 'mmap' ? new MmapProvider() : new ResizableProvider()
}

/** Throws `TypeError` unless `provider` has what a pool calls. */
export function assertProvider(provider: PageProvider): void {
  const methods = ['probe', 'get', 'put'] as const
  const missing = methods.filter((method) => typeof provider?.[method] !== 'function')
  if (missing.length > 0) throw new TypeError(`a page provider needs ${missing.join(', ')}`)
  if (typeof provider.capabilities !== 'object')
    throw new TypeError(`provider ${provider.name} has no capabilities`)
  if (provider.capabilities.pageExactRelease && typeof provider.release !== 'function') {
    throw new TypeError(`provider ${provider.name} says pageExactRelease but has no release method`)
  }
}
