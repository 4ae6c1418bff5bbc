import { SpillwayError } from '@spillway/core'
import type { Caching, MemoryBlock, MemoryRequest, MemoryRun, PageProvider } from './provider.ts'

/**
 * Keeps page providers from calling the pool that calls them. They are called in the middle of steps that must not be seen
 * half done: a chunk is out of its buffer already and in its list still, memory is charged and not taken yet. A backup is
 * never called there, so it may call back (T9).
 */
export class ProviderGuard {
  /** Name of the provider that is being called. */
  #calling: string | undefined

  /** The same provider, watched while it is called. */
  watch(provider: PageProvider): PageProvider {
    return new WatchedProvider(provider, this)
  }

  /** Throws `EINVAL` while a provider is being called: whoever asks is that provider, since its calls are synchronous. */
  assertIdle(): void {
    if (this.#calling === undefined) return
    throw new SpillwayError(
      'EINVAL',
      `page provider ${this.#calling} calls the pool that is calling it; it has to do that later`,
    )
  }

  call<Result>(provider: PageProvider, call: () => Result): Result {
    this.#calling = provider.name
    try {
      return call()
    } finally {
      this.#calling = undefined
    }
  }
}

class WatchedProvider implements PageProvider {
  readonly name: string
  readonly capabilities: PageProvider['capabilities']
  readonly #inner: PageProvider
  readonly #guard: ProviderGuard

  constructor(inner: PageProvider, guard: ProviderGuard) {
    this.name = inner.name
    this.capabilities = inner.capabilities
    this.#inner = inner
    this.#guard = guard
  }

  probe(): boolean | Promise<boolean> {
    return this.#inner.probe()
  }

  get(order: number, request: MemoryRequest): MemoryBlock | undefined {
    return this.#guard.call(this.#inner, () => this.#inner.get(order, request))
  }

  put(block: MemoryBlock): void {
    this.#guard.call(this.#inner, () => this.#inner.put(block))
  }

  release(run: MemoryRun): void {
    this.#guard.call(this.#inner, () => this.#inner.release!(run))
  }

  setCaching(runs: readonly MemoryRun[], caching: Caching): void {
    this.#guard.call(this.#inner, () => this.#inner.setCaching!(runs, caching))
  }

  map(run: MemoryRun): number {
    return this.#guard.call(this.#inner, () => this.#inner.map!(run))
  }

  unmap(run: MemoryRun, deviceAddress: number): void {
    this.#guard.call(this.#inner, () => this.#inner.unmap!(run, deviceAddress))
  }
}
