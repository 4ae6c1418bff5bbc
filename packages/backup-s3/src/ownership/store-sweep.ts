import type { StoredObject } from '../service/service.ts'
import { HeadRegister } from './head-register.ts'
import { hasRunOut } from './lease-term.ts'
import { StoreOwner } from './store-owner.ts'
import type { SweepParts } from './sweep-parts.ts'

/**
 * Removes what a persistent store holds when nobody has it; whether it did.
 *
 *   claimed ─▶ head: nothing below this number counts ─▶ all objects deleted ─▶ closed
 *
 * The sweeper is an owner as any other while it deletes: whoever opens the store meanwhile waits, and an owner that comes
 * back has lost it. The head stays, so that neither epochs nor segment numbers are ever given again. A store that is
 * closed and empty is left as it is.
 */
export async function sweepStore(parts: SweepParts): Promise<boolean> {
  const { settings, service, keys, signal } = parts
  const register = new HeadRegister(service, keys, settings.name)
  const { newest, serviceNowMs } = await register.read({ signal })
  if (newest === undefined) return false
  const { state, leaseMs, manifest } = newest.head
  if (state === 'held' && !hasRunOut(newest.writtenMs, leaseMs, serviceNowMs)) return false
  if (state === 'closed' && manifest === null && (await objectsOf(parts).next()).done) return false
  const claimed = { ...settings, persistent: true }
  const owner = await StoreOwner.claim(newest, { register, service, settings: claimed, signal })
  if (owner === undefined) return false
  owner.start()
  try {
    await owner.empty()
    const objects: StoredObject[] = []
    for await (const object of objectsOf(parts)) objects.push(object)
    await parts.remove(objects, () => owner.assertOwned(signal))
  } catch (error) {
    // That it could not be given back either says less.
    await owner.release(signal?.aborted).catch(() => {})
    throw error
  }
  await owner.release(signal?.aborted)
  return true
}

/** Everything of the store but its head. */
async function* objectsOf({ service, keys, signal }: SweepParts): AsyncGenerator<StoredObject> {
  for (const prefix of [keys.storesPrefix, keys.storeLeasesPrefix]) {
    for await (const object of service.list(prefix, { signal })) {
      if (keys.parse(object.key) !== undefined) yield object
    }
  }
}
