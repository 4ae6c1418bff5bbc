import { isSpillwayError, SpillwayError } from '@spillway/core'
import { attach } from './attach.ts'
import { type KeySpace, persistentCount } from './keys.ts'
import { hasRunOut, isTaken, Lease, readLease } from './lease.ts'
import type { Settings } from './options.ts'
import type { SegmentTable } from './segment-table.ts'
import type { S3Service } from './service.ts'
import { type EpochSurvey, survey } from './sweep.ts'
import { delay } from './waiting.ts'

/**
 * Opening: begins an epoch and finds out whether everything that will be needed is allowed and works, so that it fails
 * here and not in the middle of a memory shortage.
 *
 *   lease written (may write) ─▶ read back (may read, is S3) ─▶ written again (must be refused) ─▶ delete (may delete)
 */
export async function openEpoch(
  settings: Settings,
  service: S3Service,
  keys: KeySpace,
  table: SegmentTable,
  remove: (key: string) => void,
): Promise<{ lease: Lease; obsolete: readonly string[] }> {
  const { lease, epochs } = settings.persistent
    ? await claim(settings, service, keys)
    : { lease: await Lease.createScratch(settings, service, keys), epochs: [] }
  try {
    await probe(settings, service, keys, lease)
    if (!settings.persistent) return { lease, obsolete: [] }
    const { highestNumber, manifests } = await attach(
      epochs,
      table,
      service,
      keys,
      settings.pageSizeBytes,
      remove,
    )
    if (highestNumber > 0) lease.continueAfter(highestNumber)
    const leases = epochs.flatMap(({ lease: old, fences }) => [...(old ? [old] : []), ...fences])
    return { lease, obsolete: [...manifests, ...leases.map(({ key }) => key)] }
  } catch (error) {
    // Without permission to delete the lease stays behind; it runs out.
    await lease.withdraw().catch(() => {})
    throw error
  }
}

async function probe(settings: Settings, service: S3Service, keys: KeySpace, lease: Lease): Promise<void> {
  const { name, conditionalWrites } = settings
  const key = keys.lease(lease.epoch)
  const found = await readLease(service, key)
  if (found?.content.epoch !== lease.epoch) {
    const text = 'the endpoint does not answer like S3: what was written is not what is read'
    throw new SpillwayError('EINVAL', text, { backup: name })
  }
  if (conditionalWrites) await probeConditionalWrite(settings, service, key)
  // Nothing is there under this key: only the permission shows.
  await service.retry.run({}, () => service.deleteOne(keys.fence(lease.epoch, 'probe')))
}

async function probeConditionalWrite(settings: Settings, service: S3Service, key: string): Promise<void> {
  const error = await service.retry
    .run({}, () => service.put(key, Buffer.from('{}'), { identity: 'probe', free: true }))
    .catch((reason: unknown) => reason)
  if (isTaken(error)) return
  if (error !== undefined && !(isSpillwayError(error) && error.code === 'ENOSYS')) throw error
  throw new SpillwayError(
    'ENOSYS',
    'the service does not honour If-None-Match: *; conditionalWrites: false does without, for scratch stores',
    { backup: settings.name, cause: error },
  )
}

/** Begins the next epoch of a persistent store, when nobody is in it. */
async function claim(
  settings: Settings,
  service: S3Service,
  keys: KeySpace,
): Promise<{ lease: Lease; epochs: EpochSurvey[] }> {
  const deadline = performance.now() + settings.ownerWaitMs
  for (;;) {
    const chain = await persistentEpochs(service, keys)
    const newest = Math.max(0, ...chain.map(({ epoch }) => persistentCount(epoch)!))
    let busy: string | undefined
    let lease: Lease | undefined
    try {
      lease = await Lease.claimPersistent(newest + 1, settings, service, keys)
    } catch (error) {
      if (!isTaken(error)) throw error
      busy = 'another process is opening it at this moment'
    }
    if (lease !== undefined) {
      try {
        // Written first, read afterwards: a predecessor that comes back late sees the claim, or is seen here.
        busy = await liveOwner(service, chain, await lease.serviceNow())
        if (busy === undefined) {
          const current = await persistentEpochs(service, keys)
          return { lease, epochs: current.filter(({ epoch }) => epoch !== lease!.epoch) }
        }
      } catch (error) {
        await lease.withdraw().catch(() => {})
        throw error
      }
      await lease.withdraw()
    }
    if (performance.now() >= deadline) {
      const text = `the store under ${keys.prefix} is in use: ${busy}`
      throw new SpillwayError('EBUSY', text, { backup: settings.name })
    }
    await delay(Math.min(500, settings.leaseMs / 3))
  }
}

async function persistentEpochs(service: S3Service, keys: KeySpace): Promise<EpochSurvey[]> {
  const found = await survey(service, keys)
  return [...found.values()].filter(({ epoch }) => persistentCount(epoch) !== undefined)
}

async function liveOwner(
  service: S3Service,
  epochs: readonly EpochSurvey[],
  now: number,
): Promise<string | undefined> {
  for (const { lease } of epochs) {
    const found = lease && (await readLease(service, lease.key))
    if (found === undefined || found.content.closed) continue
    const { leaseMs, owner } = found.content
    if (!hasRunOut(found.lastModified, leaseMs, now)) {
      return `${owner} owns it, and is taken for dead ${leaseMs} ms after its last sign of life at the earliest`
    }
  }
  return undefined
}
