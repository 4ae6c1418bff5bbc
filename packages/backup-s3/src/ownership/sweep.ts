import { randomBytes } from 'node:crypto'
import { type KeySpace, persistentCount } from '../keys.ts'
import type { S3Service, StoredObject } from '../service/service.ts'
import { hasRunOut, type Lease, readLease } from './lease.ts'

/**
 * Removes what dead owners left behind.
 *
 *   lease ran out ─▶ write a fence ─▶ read the lease again ──(still the same)──▶ delete segments, lease, fence
 *                                          └──(renewed meanwhile)──▶ take the fence back, leave everything
 */

export interface SweepOptions {
  /** Also remove persistent stores whose owner is gone: their pages are lost then. @default false */
  readonly persistent?: boolean
  readonly signal?: AbortSignal
}

export interface SweepReport {
  readonly epochs: readonly string[]
  readonly objects: number
  readonly bytes: number
}

/** Everything under the prefix, by epoch. */
export interface EpochSurvey {
  readonly epoch: string
  lease: StoredObject | undefined
  readonly fences: StoredObject[]
  readonly segments: StoredObject[]
  readonly manifests: StoredObject[]
}

/** Lists the prefix: at opening and sweeping only. */
export async function survey(
  service: S3Service,
  keys: KeySpace,
  prefix = keys.prefix,
  signal?: AbortSignal,
): Promise<Map<string, EpochSurvey>> {
  const epochs = new Map<string, EpochSurvey>()
  for await (const object of service.list(prefix, { signal })) {
    const parsed = keys.parse(object.key)
    if (parsed === undefined) continue
    const { epoch, kind } = parsed
    let found = epochs.get(epoch)
    if (found === undefined) {
      found = { epoch, lease: undefined, fences: [], segments: [], manifests: [] }
      epochs.set(epoch, found)
    }
    if (kind === 'lease') found.lease = object
    else if (kind === 'fence') found.fences.push(object)
    else if (kind === 'segment') found.segments.push(object)
    else found.manifests.push(object)
  }
  return epochs
}

export async function sweep(
  service: S3Service,
  keys: KeySpace,
  lease: Lease,
  leaseMs: number,
  options: SweepOptions = {},
): Promise<SweepReport> {
  const { signal, persistent = false } = options
  // Renewed first: its time of writing is the service's clock.
  await lease.renew(signal)
  const found = await survey(service, keys, keys.prefix, signal)
  const now = await lease.serviceNow()
  const report = { epochs: [] as string[], objects: 0, bytes: 0 }
  const remove = async (objects: readonly StoredObject[]) => {
    await deleteAll(
      service,
      objects.map(({ key }) => key),
      signal,
    )
    report.objects += objects.length
    for (const { bytes } of objects) report.bytes += bytes
  }

  const chain = persistentOf(found)
  const isOwnChain = persistentCount(lease.epoch) !== undefined
  if (persistent && chain.length > 0 && !isOwnChain && (await isChainDead(service, chain, now))) {
    const newest = chain.reduce((a, b) => (persistentCount(a.epoch)! > persistentCount(b.epoch)! ? a : b))
    await withFence(service, keys, newest, signal, async () => {
      // Somebody may have opened the store since it was listed.
      const current = persistentOf(await survey(service, keys, keys.prefix, signal))
      if (!(await isChainDead(service, current, now))) return
      await removeEpochs(service, keys, current, remove, signal)
      report.epochs.push(...current.map(({ epoch }) => epoch))
    })
  }

  for (const epoch of found.values()) {
    if (epoch.epoch === lease.epoch || persistentCount(epoch.epoch) !== undefined) continue
    if (epoch.lease === undefined) {
      // Its owner began with a lease: without one it was swept, and what lies there came too late.
      const objects = [...epoch.segments, ...epoch.manifests, ...epoch.fences]
      const times = objects.map(({ lastModified }) => lastModified)
      // One whose time is not known may be the newest.
      const newest = times.includes(undefined) ? undefined : Math.max(...(times as number[]))
      if (!hasRunOut(newest, leaseMs, now)) continue
      await remove(objects)
      report.epochs.push(epoch.epoch)
      continue
    }
    const content = await readLease(service, epoch.lease.key)
    const theirs = content?.content.leaseMs ?? leaseMs
    if (!hasRunOut(content?.lastModified ?? epoch.lease.lastModified, theirs, now)) continue
    const done = await withFence(service, keys, epoch, signal, () =>
      removeEpochs(service, keys, [epoch], remove, signal),
    )
    if (done) report.epochs.push(epoch.epoch)
  }
  return report
}

function persistentOf(epochs: ReadonlyMap<string, EpochSurvey>): EpochSurvey[] {
  return [...epochs.values()].filter(({ epoch }) => persistentCount(epoch) !== undefined)
}

async function isChainDead(
  service: S3Service,
  chain: readonly EpochSurvey[],
  now: number | undefined,
): Promise<boolean> {
  for (const { lease } of chain) {
    const found = lease && (await readLease(service, lease.key))
    if (found !== undefined && !found.content.closed) {
      if (!hasRunOut(found.lastModified, found.content.leaseMs, now)) return false
    }
  }
  return true
}

/** Runs `work` behind a fence; false, and nothing done, when the owner shows up after all. */
async function withFence(
  service: S3Service,
  keys: KeySpace,
  epoch: EpochSurvey,
  signal: AbortSignal | undefined,
  work: () => Promise<void>,
): Promise<boolean> {
  const fence = keys.fence(epoch.epoch, randomBytes(6).toString('hex'))
  await service.overwrite(fence, Buffer.from('{}'), { signal })
  const before = epoch.lease
  const after = before && (await service.head(before.key, { signal, free: true }))
  // A renewal comes more than a second after what ran out, and HEAD tells whole seconds only.
  const isUnchanged = after === undefined || isSameSecond(after.lastModified, before!.lastModified)
  if (isUnchanged) await work()
  await deleteAll(service, [fence], signal)
  return isUnchanged
}

async function removeEpochs(
  service: S3Service,
  keys: KeySpace,
  epochs: readonly EpochSurvey[],
  remove: (objects: readonly StoredObject[]) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const { epoch } of epochs) {
    // Listed anew behind the fence, for what was written since.
    const [current] = (await survey(service, keys, keys.epochPrefix(epoch), signal)).values()
    if (current !== undefined) await remove([...current.segments, ...current.manifests])
  }
  // The leases last: as long as something is left, the next sweep knows whose it was.
  for (const { lease, fences } of epochs) await remove(lease === undefined ? fences : [lease, ...fences])
}

/** Deletes keys and looks at every answer. */
export async function deleteAll(
  service: S3Service,
  keys: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  let left = keys
  await service.retry.run({ signal }, async () => {
    while (left.length > 0) {
      const batch = left.slice(0, 1000)
      const failed = await service.deleteMany(batch, signal)
      left = [...failed.keys(), ...left.slice(batch.length)]
      const [error] = failed.values()
      if (error !== undefined) throw error
    }
  })
}

function isSameSecond(left: number | undefined, right: number | undefined): boolean {
  if (left === undefined || right === undefined) return false
  return Math.floor(left / 1000) === Math.floor(right / 1000)
}
