import { abortError, nowMs, SpillwayError } from '@spillway/core'
import { type KeySpace, persistentEpoch } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { SegmentTable } from '../segments/segment-table.ts'
import type { S3Service } from '../service/service.ts'
import { isUnreachable, serviceName } from '../service/service-errors.ts'
import { delay } from '../service/waiting.ts'
import { type Attached, attach } from './attach.ts'
import { HeadRegister, type HeadVersion, type Sighting } from './head-register.ts'
import { clockResolutionMs, hasRunOut } from './lease-term.ts'
import type { Owner } from './owner.ts'
import { probeBeside, probeWithLease } from './probe.ts'
import { readLease, ScratchOwner } from './scratch-owner.ts'
import { StoreOwner } from './store-owner.ts'

export interface OpeningParts {
  readonly settings: Settings
  readonly service: S3Service
  readonly keys: KeySpace
  readonly table: SegmentTable
  /** Deletes an object, once that is safe. */
  readonly remove: (key: string, bytes: number) => void
  readonly signal: AbortSignal | undefined
}

export interface Opened {
  readonly owner: Owner
  /** Of a persistent store. */
  readonly store: { readonly owner: StoreOwner; readonly attached: Attached } | undefined
}

/** Begins the epoch of a scratch store, or takes a persistent store over, with what is in it. */
export async function openEpoch(parts: OpeningParts): Promise<Opened> {
  const { settings, service, keys, signal } = parts
  if (settings.persistent) return openStore(parts)
  const owner = await ScratchOwner.create(settings, service, keys, signal)
  try {
    const key = keys.lease(owner.epoch)
    const isBack = async () => {
      const found = await readLease(service, key, signal)
      if (typeof found !== 'object' || found.content.epoch !== owner.epoch) return false
      service.noticeTimes(found.lastModified)
      return true
    }
    // From now on, since trying the service may take longer than a lease.
    owner.start()
    await probeWithLease({ epoch: owner.epoch, content: owner.content, isBack }, parts)
    return { owner, store: undefined }
  } catch (error) {
    // Without permission to delete the lease stays behind; it runs out.
    await owner.giveUp(signal).catch(() => {})
    throw error
  }
}

async function openStore(parts: OpeningParts): Promise<Opened> {
  const { settings, service, keys, signal } = parts
  const register = new HeadRegister(service, keys, settings.name)
  const owner = await claimStore(register, parts)
  // From now on, since attaching to a large store may take longer than a lease.
  owner.start()
  try {
    const attached = await attach(owner.head, parts)
    owner.continueAfter(attached.highestNumber)
    return { owner, store: { owner, attached } }
  } catch (error) {
    await owner.giveUp(signal).catch(() => {})
    throw error
  }
}

/** Claims the store as soon as nobody has it, asking once a second. Rejects with `EBUSY` when `ownerWaitMs` are over. */
async function claimStore(register: HeadRegister, parts: OpeningParts): Promise<StoreOwner> {
  const { settings, service, keys, signal } = parts
  const deadline = nowMs() + settings.ownerWaitMs
  const watch = new SilenceWatch()
  for (let isTried = false; ; ) {
    register.requests = 0
    const sighting = await register.read({ signal })
    const { newest } = sighting
    if (newest === undefined) await assertNotOlder(register, parts)
    if (!isTried) await probeBeside(persistentEpoch((newest?.head.epoch ?? 0) + 1), parts)
    isTried = true
    const isFree = newest === undefined || newest.head.state === 'closed' || watch.isDead(newest, sighting)
    const owner = isFree ? await StoreOwner.claim(newest, { register, service, settings, signal }) : undefined
    if (owner !== undefined) return owner
    if (nowMs() >= deadline) {
      const text = `the store under ${keys.prefix} is in use: ${whoHasIt(newest, settings)}`
      throw new SpillwayError('EBUSY', text, { backup: settings.name })
    }
    await delay(pauseMs(register.requests, sighting), signal)
  }
}

/** A second for each request, less when the owner's lease runs out before that. */
function pauseMs(requests: number, { newest, serviceNowMs }: Sighting): number {
  const usual = Math.max(1, requests) * 1000
  if (newest?.writtenMs === undefined || serviceNowMs === undefined) return usual
  const left = newest.writtenMs + newest.head.leaseMs + clockResolutionMs - serviceNowMs
  return Math.min(usual, Math.max(500, left))
}

function whoHasIt(newest: HeadVersion | undefined, { ownerWaitMs }: Settings): string {
  if (newest === undefined || newest.head.state === 'closed')
    return `another process is opening it at this moment; ownerWaitMs (${ownerWaitMs}) says how long to wait for it`
  const { owner, leaseMs } = newest.head
  return (
    `${owner} owns it, and is taken for dead ${leaseMs} ms after its last sign of life at the earliest; ` +
    `ownerWaitMs (${ownerWaitMs}) says how long to wait for its close(), and for its end if it is more than ${leaseMs + clockResolutionMs}`
  )
}

/** Tells dead owners: by the service's clock, or where that is not told or was set back, by a silence of more than a lease. */
class SilenceWatch {
  #version = 0
  #seenAt = 0

  isDead({ version, writtenMs, head }: HeadVersion, { serviceNowMs }: Sighting): boolean {
    const now = nowMs()
    if (this.#version !== version) {
      this.#version = version
      this.#seenAt = now
    }
    if (hasRunOut(writtenMs, head.leaseMs, serviceNowMs)) return true
    const isTold = writtenMs !== undefined && serviceNowMs !== undefined
    // What was written in the future was written before the service's clock was set back: perhaps by a year.
    if (isTold && writtenMs <= serviceNowMs + clockResolutionMs) return false
    return now > this.#seenAt + head.leaseMs * 1.1 + clockResolutionMs
  }
}

/**
 * A store without a head was written by an earlier version, or somebody removed its head: nobody knows what counts there,
 * so it is left alone.
 */
async function assertNotOlder(
  register: HeadRegister,
  { settings, service, keys, signal }: OpeningParts,
): Promise<void> {
  for await (const { key } of service.list(keys.storesPrefix, { signal })) {
    if ((await register.read({ signal })).newest !== undefined) return
    const text = `${key} is of a store without a head, which this version cannot open; remove it, or use another prefix`
    throw new SpillwayError('ENOTSUP', text, { backup: settings.name })
  }
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
