import { randomBytes } from 'node:crypto'
import { isSpillwayError } from '@spillway/core'
import { persistentCount } from '../keys.ts'
import type { StoredObject } from '../service/service.ts'
import { deleteAll } from './deletions.ts'
import { hasRunOut } from './lease-term.ts'
import { readLease } from './scratch-owner.ts'
import { sweepStore } from './store-sweep.ts'
import type { SweepParts } from './sweep-parts.ts'

/**
 * Removes what dead owners left behind.
 *
 *   lease ran out ─▶ write a fence ─▶ read the lease again ──(still the same)──▶ delete witness ─▶ segments, lease, fence
 *                                          └──(renewed meanwhile)──▶ take the fence back, leave everything
 *
 * What cannot be told from alive is left: a lease of a newer format, or one whose age the service does not say.
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
  /** What could not be removed, and why; the other epochs were swept all the same. */
  readonly failures: readonly { readonly epoch: string; readonly error: Error }[]
}

/** Everything of a scratch epoch under the prefix. */
interface EpochSurvey {
  readonly epoch: string
  lease: StoredObject | undefined
  readonly fences: StoredObject[]
  readonly objects: StoredObject[]
}

/** Lists what scratch epochs have under these prefixes, and what the service's clock said when that began. */
async function survey(
  { service, keys, signal }: SweepParts,
  ...prefixes: readonly string[]
): Promise<{ found: ReadonlyMap<string, EpochSurvey>; serviceNowMs: number | undefined }> {
  const epochs = new Map<string, EpochSurvey>()
  let serviceNowMs: number | undefined
  const onDate = (time: number) => {
    serviceNowMs ??= time
  }
  const objects = async function* () {
    for (const prefix of prefixes) yield* service.list(prefix, { signal, onDate })
  }
  for await (const object of objects()) {
    const parsed = keys.parse(object.key)
    if (parsed === undefined || persistentCount(parsed.epoch) !== undefined) continue
    const { epoch, kind } = parsed
    let found = epochs.get(epoch)
    if (found === undefined) {
      found = { epoch, lease: undefined, fences: [], objects: [] }
      epochs.set(epoch, found)
    }
    if (kind === 'lease') found.lease = object
    else if (kind === 'fence') found.fences.push(object)
    else found.objects.push(object)
  }
  return { found: epochs, serviceNowMs }
}

/** Sweeps the prefix, less the epoch of the one who sweeps. */
export async function sweep(
  ownEpoch: string,
  parts: Omit<SweepParts, 'remove' | 'signal'>,
  { signal, persistent = false }: SweepOptions = {},
): Promise<SweepReport> {
  const report = {
    epochs: [] as string[],
    objects: 0,
    bytes: 0,
    failures: [] as { epoch: string; error: Error }[],
  }
  const remove = async (objects: readonly StoredObject[], guard?: () => Promise<void>) => {
    const keys = objects.map(({ key }) => key)
    await deleteAll(parts.service, keys, { signal, ...(guard ? { guard } : {}) })
    report.objects += objects.length
    for (const { bytes } of objects) report.bytes += bytes
  }
  const whole: SweepParts = { ...parts, signal, remove }
  const attempt = async (epoch: string, work: () => Promise<boolean>) => {
    try {
      if (await work()) report.epochs.push(epoch)
    } catch (error) {
      if (signal?.aborted || (isSpillwayError(error) && error.code === 'EBADF')) throw error
      report.failures.push({ epoch, error: error as Error })
    }
  }
  // Not the persistent store, which may have any number of objects.
  const { leasesPrefix, scratchPrefix } = parts.keys
  const { found, serviceNowMs } = await survey(whole, leasesPrefix, scratchPrefix)
  // Whoever owns the store himself does not take it for an orphan.
  if (persistent && persistentCount(ownEpoch) === undefined) await attempt('store', () => sweepStore(whole))
  for (const epoch of found.values()) {
    if (epoch.epoch === ownEpoch) continue
    await attempt(epoch.epoch, () => sweepEpoch(epoch, serviceNowMs, whole))
  }
  return report
}

/** Removes a scratch epoch if its owner is dead; whether it did. */
async function sweepEpoch(
  epoch: EpochSurvey,
  serviceNowMs: number | undefined,
  parts: SweepParts,
): Promise<boolean> {
  const { service, keys, signal } = parts
  const key = keys.lease(epoch.epoch)
  const found = await readLease(service, key, signal)
  if (found === 'unreadable') return false
  if (found === undefined) {
    // An owner begins with a lease and ends with it: what lies here came too late, or its owner began after the leases
    // were listed, and then the lease is there by now.
    await parts.remove([...epoch.objects, ...epoch.fences])
    return true
  }
  const { content, lastModified } = found
  if (!hasRunOut(lastModified, content.leaseMs, serviceNowMs)) return false
  return withFence(epoch, lastModified, parts, async () => {
    // Listed anew behind the fence, for what was written since. Nothing goes before the witness is known to be gone: an
    // owner that comes back finds out by it, also when the other deletes arrive after the fence went. The lease goes last:
    // as long as something is left, the next sweep knows whose it was.
    const { found: again } = await survey(parts, keys.epochPrefix(epoch.epoch))
    const objects = [...again.values()].flatMap((current) => current.objects)
    const witness = keys.witness(epoch.epoch)
    await parts.remove(objects.filter((object) => object.key === witness))
    await parts.remove(objects.filter((object) => object.key !== witness))
    await parts.remove([epoch.lease ?? { key, bytes: 0, lastModified }, ...epoch.fences])
  })
}

/** Runs `work` behind a fence; false, and nothing done, when the owner shows up after all. */
async function withFence(
  epoch: EpochSurvey,
  writtenMs: number | undefined,
  { service, keys, signal }: SweepParts,
  work: () => Promise<void>,
): Promise<boolean> {
  const fence = keys.fence(epoch.epoch, randomBytes(6).toString('hex'))
  await service.overwrite(fence, Buffer.from('{}'), { signal, urgent: true })
  try {
    const after = await service.head(keys.lease(epoch.epoch), { signal, urgent: true })
    // A renewal comes more than a second after what ran out, and HEAD tells whole seconds only.
    const isUnchanged = after === undefined || seconds(after.lastModified) === seconds(writtenMs)
    if (isUnchanged) await work()
    return isUnchanged
  } finally {
    await deleteAll(service, [fence]).catch(() => {})
  }
}

function seconds(milliseconds: number | undefined): number {
  return Math.floor((milliseconds ?? Number.NaN) / 1000)
}
