import { fileURLToPath, pathToFileURL } from 'node:url'
import { UsageError } from '../usage-error.ts'

/** What a process needs to reach the service: plain data, so that it can be sent to it. */
export interface S3Access {
  readonly clientConfig: Readonly<Record<string, unknown>>
  readonly bucket: string
}

export interface S3ServerOptions {
  /** The test server of backup-s3, a throwaway Ceph cluster, or the service that the environment names. */
  readonly kind: 'embedded' | 'ceph' | 'env'
  /** Added to every answer, and the share of requests that is answered with 503; with the embedded server only. */
  readonly latencyMs: number
  readonly errorShare: number
}

export interface S3Server extends AsyncDisposable {
  readonly access: S3Access
}

/** Starts the service, or takes the one of the environment. The harness is test code: it is loaded from the checkout. */
export async function startS3Server(options: S3ServerOptions): Promise<S3Server> {
  const { kind, latencyMs, errorShare } = options
  const path = fileURLToPath(
    new URL('../../../packages/backup-s3/test/harness/index.ts', rootOf(import.meta.url)),
  )
  const { faults, s3Target, startCeph } = await import(pathToFileURL(path).href)
  if (kind === 'env' && !process.env['S3_ENDPOINT']) {
    throw new UsageError(
      '--s3 env needs S3_ENDPOINT, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment',
    )
  }
  const cluster = kind === 'ceph' ? await startCeph() : undefined
  try {
    const target = await s3Target(
      kind === 'embedded'
        ? { embedded: true }
        : cluster === undefined
          ? {}
          : { environment: cluster.environment },
    )
    if (errorShare > 0) await target.server.faults.always('any', faults.slowDown, { chance: errorShare })
    if (latencyMs > 0) await target.server.faults.always('any', faults.delayed(latencyMs))
    return {
      access: { clientConfig: target.clientConfig, bucket: target.bucket },
      async [Symbol.asyncDispose]() {
        await target.close()
        await cluster?.close()
      },
    }
  } catch (failure) {
    await cluster?.close()
    throw failure
  }
}

/** The directory of the program, whether it runs built (`dist`) or from the sources (`src/s3`). */
function rootOf(url: string): URL {
  return new URL(url.endsWith('.ts') ? '../' : './', url)
}
