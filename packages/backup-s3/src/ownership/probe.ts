import { randomBytes } from 'node:crypto'
import { isSpillwayError, SpillwayError } from '@spillway/core'
import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import { adviceWithoutConditionalWrites } from '../service/object-writer.ts'
import type { S3Service } from '../service/service.ts'
import { hurryMs, isTaken } from './owner.ts'

/**
 * Finds out whether everything that a store will need is allowed and works, so that opening fails and not a call in the
 * middle of a memory shortage.
 *
 *   written (may write) ─▶ read back (may read, is S3) ─▶ written again (must be refused) ─▶ deleted (may delete)
 */
interface ProbeParts {
  readonly settings: Settings
  readonly service: S3Service
  readonly keys: KeySpace
  readonly signal: AbortSignal | undefined
}

/**
 * Tries it with the lease of a scratch store, which is there already; `isBack` reads it. What is written again is the
 * lease, so that a request which arrives after the lease was removed leaves one that runs out.
 */
export async function probeWithLease(
  { epoch, content, isBack }: { epoch: string; content: Buffer; isBack: () => Promise<boolean> },
  { settings, service, keys, signal }: ProbeParts,
): Promise<void> {
  if (!(await isBack()) && !(await isBack())) throw notS3(settings.name)
  if (settings.conditionalWrites) {
    const error = await writeAgain(service, keys.lease(epoch), content, signal)
    if (!isTaken(error)) throw ignoresPreconditions(error, settings.name)
  }
  // Nothing is there under this key: only the permission shows.
  await service.probeDeleting(keys.fence(epoch, 'probe'), signal)
}

/**
 * Tries it with an object that means nothing and is removed again, before a persistent store is touched. Another process
 * may be trying with the same key at the same time: then it is tried again with a key of its own.
 */
export async function probeBeside(epoch: string, parts: ProbeParts): Promise<void> {
  const { settings, service, keys, signal } = parts
  const own = keys.fence(epoch, `probe-${randomBytes(6).toString('hex')}`)
  for (const key of [keys.lease(epoch), own]) {
    const isLast = key === own
    try {
      const failure = await tryKey(key, parts)
      if (failure === undefined) return
      if (isLast) throw failure
    } catch (error) {
      const hurry = signal?.aborted ? AbortSignal.timeout(hurryMs) : signal
      await service.deleteOne(key, { signal: hurry, urgent: true }).catch(() => {})
      throw error
    }
  }
  throw notS3(settings.name)
}

/** What is wrong, if that may come of another process that uses the same key; throws what may not. */
async function tryKey(
  key: string,
  { settings, service, signal }: ProbeParts,
): Promise<SpillwayError | undefined> {
  const identity = randomBytes(12).toString('hex')
  const body = Buffer.from(JSON.stringify({ probe: identity }))
  let failure: SpillwayError | undefined
  const written = await service
    .upload(key, body, { identity, free: true, signal })
    .catch((error: unknown) => {
      if (!isTaken(error)) throw error
      failure = error as SpillwayError
    })
    .then(() => failure === undefined)
  if (written) {
    const isBack = async () => {
      const found = await service.read(key, { free: true, signal })
      if (!found?.body.equals(body)) return false
      service.noticeTimes(found.lastModified)
      return true
    }
    if (!(await isBack()) && !(await isBack())) failure = notS3(settings.name)
    else {
      const error = await writeAgain(service, key, body, signal)
      if (!isTaken(error)) failure = ignoresPreconditions(error, settings.name)
    }
  }
  await service.probeDeleting(key, signal)
  return failure
}

/** Writes a key that is taken, and returns the error that must come of it; throws any that says nothing about it. */
async function writeAgain(
  service: S3Service,
  key: string,
  body: Buffer,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  const error = await service.retry
    .run({ signal }, () => service.put(key, body, { identity: 'probe', free: true, signal }))
    .catch((reason: unknown) => reason)
  if (error === undefined || isTaken(error)) return error
  if (isSpillwayError(error) && error.code === 'ENOSYS') return error
  throw error
}

function notS3(backup: string): SpillwayError {
  const text = 'the endpoint does not answer like S3: what was written is not what is read'
  return new SpillwayError('EINVAL', text, { backup })
}

function ignoresPreconditions(cause: unknown, backup: string): SpillwayError {
  return new SpillwayError('ENOSYS', adviceWithoutConditionalWrites, { backup, cause })
}
