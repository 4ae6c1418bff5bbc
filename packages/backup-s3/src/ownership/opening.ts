import { abortError, isSpillwayError, nowMs, SpillwayError } from '@spillway/core'
import { type KeySpace, persistentCount } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { SegmentTable } from '../segments/segment-table.ts'
import type { S3Service } from '../service/service.ts'
import { isUnreachable, serviceName } from '../service/service-errors.ts'
import { delay } from '../service/waiting.ts'
import { attach } from './attach.ts'
import { hasRunOut, isTaken, Lease, readLease } from './lease.ts'
import { type EpochSurvey, survey } from './sweep.ts'

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
  signal?: AbortSignal,
): Promise<{ lease: Lease; obsolete: readonly string[] }> {
  const { lease, epochs } = settings.persistent
    ? await claim(settings, service, keys, signal)
    : { lease: await Lease.createScratch(settings, service, keys, signal), epochs: [] }
  try {
    await probe(settings, service, keys, lease, signal)
    if (!settings.persistent) return { lease, obsolete: [] }
    const { highestNumber, manifests } = await attach(
      epochs,
      table,
      service,
      keys,
      settings.pageSizeBytes,
      remove,
      signal,
    )
    if (highestNumber > 0) lease.continueAfter(highestNumber)
    const leases = epochs.flatMap(({ lease: old, fences }) => [...(old ? [old] : []), ...fences])
    return { lease, obsolete: [...manifests, ...leases.map(({ key }) => key)] }
  } catch (error) {
    // Without permission to delete the lease stays behind; it runs out.
    await lease.withdraw(signal?.aborted).catch(() => {})
    throw error
  }
}

async function probe(
  settings: Settings,
  service: S3Service,
  keys: KeySpace,
  lease: Lease,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { name, conditionalWrites } = settings
  const key = keys.lease(lease.epoch)
  const comesBack = async () => (await readLease(service, key, signal))?.content.epoch === lease.epoch
  if (!(await comesBack()) && !(await comesBack())) {
    const text = 'the endpoint does not answer like S3: what was written is not what is read'
    throw new SpillwayError('EINVAL', text, { backup: name })
  }
  if (conditionalWrites) await probeConditionalWrite(settings, service, key, signal)
  // Nothing is there under this key: only the permission shows.
  await service.retry.run({ signal }, () => service.probeDeleting(keys.fence(lease.epoch, 'probe'), signal))
}

async function probeConditionalWrite(
  settings: Settings,
  service: S3Service,
  key: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const error = await service.retry
    .run({ signal }, () => service.put(key, Buffer.from('{}'), { identity: 'probe', free: true, signal }))
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
  signal: AbortSignal | undefined,
): Promise<{ lease: Lease; epochs: EpochSurvey[] }> {
  const deadline = nowMs() + settings.ownerWaitMs
  for (;;) {
    const chain = await persistentEpochs(service, keys, signal)
    const newest = Math.max(0, ...chain.map(({ epoch }) => persistentCount(epoch)!))
    let busy: string | undefined
    let lease: Lease | undefined
    try {
      lease = await Lease.claimPersistent(newest + 1, settings, service, keys, signal)
    } catch (error) {
      if (!isTaken(error)) throw error
      busy = 'another process is opening it at this moment'
    }
    if (lease !== undefined) {
      try {
        // Written first, read afterwards: a predecessor that comes back late sees the claim, or is seen here.
        busy = await liveOwner(service, chain, await lease.serviceNow(signal), signal)
        if (busy === undefined) {
          const current = await persistentEpochs(service, keys, signal)
          return { lease, epochs: current.filter(({ epoch }) => epoch !== lease!.epoch) }
        }
      } catch (error) {
        await lease.withdraw(signal?.aborted).catch(() => {})
        throw error
      }
      await lease.withdraw()
    }
    if (nowMs() >= deadline) {
      const text = `the store under ${keys.prefix} is in use: ${busy}`
      throw new SpillwayError('EBUSY', text, { backup: settings.name })
    }
    await delay(Math.min(500, settings.leaseMs / 3), signal)
  }
}

async function persistentEpochs(
  service: S3Service,
  keys: KeySpace,
  signal: AbortSignal | undefined,
): Promise<EpochSurvey[]> {
  const found = await survey(service, keys, keys.prefix, signal)
  return [...found.values()].filter(({ epoch }) => persistentCount(epoch) !== undefined)
}

async function liveOwner(
  service: S3Service,
  epochs: readonly EpochSurvey[],
  now: number | undefined,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  for (const { lease } of epochs) {
    const found = lease && (await readLease(service, lease.key, signal))
    if (found === undefined || found.content.closed) continue
    const { leaseMs, owner } = found.content
    if (!hasRunOut(found.lastModified, leaseMs, now)) {
      return `${owner} owns it, and is taken for dead ${leaseMs} ms after its last sign of life at the earliest`
    }
  }
  return undefined
}

/** What `open` fails with: the caller's abort, an endpoint that was never there, or the error as it is. */
export async function openingError(
  error: unknown,
  settings: Settings,
  service: S3Service,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  const { name, client } = settings
  if (signal?.aborted) return abortError(signal, { backup: name })
  if (service.retry.wasReached || !isUnreachable(error)) return error
  const { cause } = error as SpillwayError
  const configured = await client.config.endpoint?.().catch(() => undefined)
  // The name that was looked up: that of the bucket where it is put before the endpoint's.
  const { hostname, address, port } = { ...configured, ...(cause as object) } as Record<string, unknown>
  const where = `${hostname ?? address ?? 'the endpoint of the region'}${port === undefined ? '' : `:${port}`}`
  const isBucketName = typeof hostname === 'string' && hostname.startsWith(`${settings.bucket}.`)
  const pathStyle = isBucketName
    ? 'forcePathStyle: true of the client puts the bucket into the path; else '
    : ''
  const advice = `${pathStyle}check the endpoint and region of the client, name resolution, and that the service runs`
  return new SpillwayError('EIO', `${where} cannot be reached (${serviceName(cause)}): ${advice}`, {
    backup: name,
    cause,
    retryable: true,
  })
}
