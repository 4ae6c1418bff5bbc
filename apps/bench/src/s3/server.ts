import { randomBytes } from 'node:crypto'
import type { CephControl } from '@spillway/test-s3-server'
import { failureLine, UsageError } from '../usage-error.ts'

/** What a process needs to reach the service: plain data, so that it can be sent to it. */
export interface S3Access {
  readonly clientConfig: Readonly<Record<string, unknown>>
  readonly bucket: string
  /** Everything that is written lies under this prefix, which is cleared when the server is left. */
  readonly prefix: string
  /** What runs there, for the report. */
  readonly engine: string
}

export interface S3ServerOptions {
  /** The S3 server for tests, a throwaway Ceph cluster, or the service that the environment names. */
  readonly kind: 'embedded' | 'ceph' | 'env'
  /** Added to every answer, and the share of requests that is answered with 503; with the embedded server only. */
  readonly latencyMs: number
  readonly errorShare: number
  /** Memory for bodies that the embedded server has ready, so that nobody waits for the kernel's. @default 0 */
  readonly warmBytes?: number
}

/** What the embedded server is told to do wrong: the share of requests that each befalls. */
export interface FaultShares {
  readonly latencyMs?: number
  /** 503 SlowDown. */
  readonly slowDown?: number
  /** The answer's body breaks off half way. */
  readonly cut?: number
  /** Done, and the connection ends without an answer. */
  readonly lostAnswer?: number
  /** One bit of the body of a GET arrives wrong. */
  readonly flipped?: number
}

export interface S3Server extends AsyncDisposable {
  readonly access: S3Access
  /** With Ceph only. */
  readonly daemons: CephControl | undefined
  /** Puts other faults in the place of those before. With the embedded server only. */
  readonly setFaults: ((shares: FaultShares) => Promise<void>) | undefined
  /** Keys under the prefix. */
  list(): Promise<string[]>
}

/** Starts the service, or takes the one of the environment. */
export async function startS3Server(options: S3ServerOptions): Promise<S3Server> {
  const { kind, latencyMs, errorShare, warmBytes = 0 } = options
  assertEnvironment(kind)
  const { faults, s3Target, startCeph } = await import('@spillway/test-s3-server')
  const cluster = kind === 'ceph' ? await startCeph() : undefined
  try {
    const target = await s3Target(
      kind === 'embedded'
        ? { embedded: true, warmBytes }
        : cluster === undefined
          ? {}
          : { environment: cluster.environment },
    ).catch((failure: Error) => {
      const { S3_ENDPOINT, S3_BUCKET = '(a new one)' } = process.env
      if (kind !== 'env') throw failure
      throw new UsageError(
        `--s3 env: ${S3_ENDPOINT}, bucket ${S3_BUCKET}: ${failure.name}: ${failureLine(failure)}`,
      )
    })
    const prefix = `spillway-bench-${randomBytes(6).toString('hex')}/`
    const setFaults = async (shares: FaultShares) => {
      const plan = target.server!.faults
      await plan.clear()
      if (shares.slowDown) await plan.always('any', faults.slowDown, { chance: shares.slowDown })
      if (shares.cut) await plan.always('GetObject', faults.cut(), { chance: shares.cut })
      if (shares.lostAnswer) await plan.always('any', faults.lostAnswer, { chance: shares.lostAnswer })
      if (shares.flipped) await plan.always('GetObject', faults.flipped(), { chance: shares.flipped })
      if (shares.latencyMs) await plan.always('any', faults.delayed(shares.latencyMs))
    }
    if (kind === 'embedded') await setFaults({ latencyMs, slowDown: errorShare })
    const list = async (): Promise<string[]> => (await target.list(prefix)).map(({ key }) => key)
    return {
      access: {
        clientConfig: { ...target.clientConfig },
        bucket: target.bucket,
        prefix,
        engine: cluster?.environment.S3_ENGINE ?? (kind === 'env' ? target.endpoint : 'embedded test server'),
      },
      daemons: cluster?.control,
      setFaults: kind === 'embedded' ? setFaults : undefined,
      list,
      async [Symbol.asyncDispose]() {
        // What is in memory, or in a cluster that is thrown away, need not be deleted, and may be unable to be.
        if (cluster !== undefined) return cluster.close()
        if (kind === 'env') await clearWhatWasWritten(target, prefix, list)
        await target.close()
      },
    }
  } catch (failure) {
    await cluster?.close()
    throw failure
  }
}

/** Deletes what a run that was interrupted, or failed, has left: also uploads that were under way when it ended. */
async function clearWhatWasWritten(
  target: { clear(prefix: string): Promise<void> },
  prefix: string,
  list: () => Promise<string[]>,
): Promise<void> {
  for (let attempt = 1; (await list()).length > 0 && attempt <= 5; attempt++) {
    await target.clear(prefix)
    await new Promise((resolve) => setTimeout(resolve, 200 * attempt))
  }
}

function assertEnvironment(kind: S3ServerOptions['kind']): void {
  const needed = ['S3_ENDPOINT', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']
  const missing = needed.filter((name) => !process.env[name])
  if (kind !== 'env' || missing.length === 0) return
  throw new UsageError(
    `--s3 env needs ${needed.join(', ')} in the environment; not set: ${missing.join(', ')}`,
  )
}
