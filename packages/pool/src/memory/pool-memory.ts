import { SpillwayError } from '@spillway/core'
import { ProviderGuard } from '../providers/guard.ts'
import type { PageProvider } from '../providers/provider.ts'
import { assertProvider, builtInProvider, type ProviderRegistry } from '../providers/registry.ts'
import { IdleTrimmer } from './idle-trimmer.ts'
import { Pages } from './pages.ts'
import type { ResidentLimit } from './resident-limit.ts'

/** What memory a pool asks for; pools of one budget that ask for the same have it together. */
export interface MemoryWish {
  readonly pageSizeBytes: number
  readonly maxOrder: number
  readonly beneficialOrder: number
  /** A provider, the name of a built-in one, or the first of the registry that works. */
  readonly choice: PageProvider | 'mmap' | 'resizable' | undefined
  readonly registry: ProviderRegistry
}

/** The budget that a memory is of. */
export interface MemoryPlace {
  readonly limit: ResidentLimit
  /** All memories of the budget. */
  readonly all: ReadonlySet<PoolMemory>
  /** Whether claims wait for memory. */
  readonly isWaitedFor: () => boolean
}

/**
 * Free lists over a page provider, which is chosen when memory is first needed. Several pools of a budget have it together: what one evicts the
 * other takes without asking the system.
 */
export class PoolMemory {
  readonly pages: Pages
  readonly guard = new ProviderGuard()
  readonly #trimmer: IdleTrimmer
  readonly #wish: MemoryWish
  #users = 0
  /** Another provider was set: who comes now may not have wished for that one. */
  #isChanged = false
  #provider: PageProvider | undefined
  #ready: Promise<PageProvider> | undefined
  /** A provider that was made for this memory, and so is closed with it. */
  #ownProvider: PageProvider | undefined
  /** Calls of `change` so far, and the one that set the provider which serves now. */
  #changes = 0
  #changedBy = 0

  readonly #all: ReadonlySet<PoolMemory>

  constructor(wish: MemoryWish, place: MemoryPlace) {
    this.#wish = wish
    this.#all = place.all
    this.pages = new Pages(wish.pageSizeBytes, wish.maxOrder, place.limit, 0)
    this.#trimmer = new IdleTrimmer(this.pages, place.isWaitedFor)
    this.pages.onUnwanted = () => this.#trimmer.start()
    this.pages.beneficialOrder = wish.beneficialOrder
  }

  /** Whether a pool that comes now may have this memory too. */
  fulfils(wish: MemoryWish): boolean {
    const keys = ['pageSizeBytes', 'beneficialOrder', 'choice', 'registry'] as const
    if (this.#isChanged || wish.maxOrder > this.#wish.maxOrder) return false
    return keys.every((key) => wish[key] === this.#wish[key])
  }

  get isShared(): boolean {
    return this.#users > 1
  }

  /** A pool comes that keeps so many pages warm. */
  join(idlePages: number): void {
    this.#users++
    this.pages.idleLimitPages += idlePages
  }

  /** A pool has left, and all that it had is given back. Says whether nobody is left; then the provider is closed. */
  leave(idlePages: number): boolean {
    this.pages.idleLimitPages -= idlePages
    if (--this.#users > 0) return false
    this.#trimmer.stop()
    // What a provider did not take the first time is offered once more.
    this.pages.end()
    // One that is still looked for is closed when it is found.
    this.#closeOwn()
    return true
  }

  /** The provider that new memory comes from. Rejects with `ENOSYS` when none works. */
  async provider(): Promise<PageProvider> {
    this.#ready ??= this.#select().catch((failure) => {
      this.#ready = undefined
      throw failure
    })
    const first = await this.#ready
    // Another may have been set while the first was looked for.
    return this.#provider ?? first
  }

  /**
   * Takes all memory from another provider from now on; what others gave goes back to them (T81). `check` throws when it cannot
   * do what is asked of it. Rejects with `ENOSYS` when it does not probe well, `EBUSY` when several pools have this memory.
   */
  async change(provider: PageProvider, check: () => void): Promise<void> {
    this.#assertAlone()
    assertProvider(provider)
    const call = ++this.#changes
    await assertProbes(provider)
    await this.provider()
    await this.pages.trimPaced(this.pages.retainedPages)
    this.#assertAlone()
    check()
    this.#assertExact(provider)
    // A later call was faster: as if this one had been before it.
    if (call < this.#changedBy) return
    this.#changedBy = call
    this.#isChanged = true
    // What is retained of the former one is not handed out any more.
    this.pages.trim(this.pages.idlePages - this.pages.retainedPages)
    this.#use(provider)
  }

  #assertAlone(): void {
    if (this.isShared)
      throw new SpillwayError('EBUSY', 'other pools of the budget have the same memory; its provider stays')
  }

  /**
   * Memory that only leaves in whole blocks is of no use to another memory while a page of a block is used: then the sum could
   * be within the limit, and there would be none to take.
   */
  #assertExact(provider: PageProvider): void {
    for (const other of this.#all) {
      const inexact = [provider, other.#provider].find(
        (each) => each?.capabilities.pageExactRelease === false,
      )
      if (other === this || other.#provider === undefined || inexact === undefined) continue
      throw new SpillwayError(
        'ENOSYS',
        `page provider ${inexact.name} gives back whole blocks only; then all pools of a budget need the same provider, page size and maxOrder (the largest first)`,
      )
    }
  }

  #use(provider: PageProvider): void {
    this.#provider = provider
    this.pages.slabs.provider = this.guard.watch(provider)
  }

  #closeOwn(): void {
    this.#ownProvider?.close?.()
    this.#ownProvider = undefined
  }

  async #select(): Promise<PageProvider> {
    const { choice, registry } = this.#wish
    let provider: PageProvider
    if (choice === undefined) {
      const selected = await registry.select()
      provider = selected.provider
      if (selected.made) this.#ownProvider = provider
    } else {
      provider = typeof choice === 'string' ? builtInProvider(choice) : choice
      if (typeof choice === 'string') this.#ownProvider = provider
      await assertProbes(provider)
    }
    try {
      if (this.#users === 0) throw new SpillwayError('EBADF', 'the pool was closed before it had memory')
      this.#assertExact(provider)
    } catch (failure) {
      this.#closeOwn()
      throw failure
    }
    this.#use(provider)
    return provider
  }
}

/** Throws `ENOSYS` unless the provider probes well; a probe that throws is the cause. */
async function assertProbes(provider: PageProvider): Promise<void> {
  let failure: unknown
  try {
    if (await provider.probe()) return
  } catch (thrown) {
    failure = thrown
  }
  throw new SpillwayError('ENOSYS', `page provider ${provider.name} does not work here`, { cause: failure })
}
