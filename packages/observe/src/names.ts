import type { Backup } from '@spillway/core'
import type { MemoryBudget, Pool } from '@spillway/pool'

/**
 * Names for what may bear the same name twice: the first is called by its own, the next gets a number. Each keeps what it got while
 * it is there, so a series in a store of metrics stays the series of one thing.
 */
class Names<Named extends { readonly name: string }> {
  readonly #names = new WeakMap<Named, string>()
  readonly #holders = new Map<string, WeakRef<Named>>()

  of(named: Named): string {
    const known = this.#names.get(named)
    if (known !== undefined) return known
    let name = named.name
    for (let number = 2; this.#holders.get(name)?.deref() !== undefined; number++)
      name = `${named.name} #${number}`
    this.#names.set(named, name)
    this.#holders.set(name, new WeakRef(named))
    return name
  }
}

export const poolNames = new Names<Pool>()
export const budgetNames = new Names<MemoryBudget>()
export const backupNames = new Names<Backup>()
