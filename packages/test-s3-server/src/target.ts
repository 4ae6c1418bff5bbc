/**
 * The service that tests and benchmarks run against: the one named in the environment, else the embedded server.
 *
 *   S3_ENDPOINT                 any S3-compatible service; unset: the embedded server
 *   S3_BUCKET                   a bucket that exists; unset: one is made and removed
 *   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION (default us-east-1)
 *   S3_FORCE_PATH_STYLE=0       for services that want the bucket in the host name
 *   S3_CONDITIONAL_WRITES=0     for services that do not honour `If-None-Match: *` and `If-Match`
 *   CEPH_CONTROL                path of a script that kills and restarts parts of the service; see `ceph.ts`
 */
import { randomBytes } from 'node:crypto'
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  ListObjectsV2Command,
  S3Client,
  type S3ClientConfig,
} from '@aws-sdk/client-s3'
import { type Credentials, type EmbeddedServer, startServer } from './embedded-server.ts'
import type { ServerOptions } from './server/protocol.ts'

export interface TargetOptions extends ServerOptions {
  /** Takes the embedded server whatever the environment says, for tests that need its faults. @default false */
  readonly embedded?: boolean
  /** The process of the embedded server is left to the next target that says so: for a target per test. @default false */
  readonly reuseProcess?: boolean
  /** @default process.env */
  readonly environment?: Readonly<Record<string, string | undefined>>
}

export interface ListedObject {
  readonly key: string
  readonly bytes: number
}

export interface S3Target extends AsyncDisposable {
  readonly endpoint: string
  readonly region: string
  readonly bucket: string
  readonly credentials: Credentials
  readonly forcePathStyle: boolean
  /** Whether it honours `If-None-Match: *`. */
  readonly conditionalWrites: boolean
  /** Whether `server` is there, and with it faults, the request log and counters. */
  readonly canInjectFaults: boolean
  readonly server: EmbeddedServer | undefined
  /** What a client for this target has to be told; plain data, good for a child process too. */
  readonly clientConfig: S3ClientConfig
  /** A client of its own; the target destroys it when it is closed. */
  client(config?: S3ClientConfig): S3Client
  /** A prefix that nobody else uses. */
  prefix(): string
  /** All objects under a prefix, by key. */
  list(prefix?: string): Promise<readonly ListedObject[]>
  /** Deletes all objects under a prefix. */
  clear(prefix?: string): Promise<void>
  /** Removes what was made, and ends the embedded server. */
  close(): Promise<void>
}

type Environment = NonNullable<TargetOptions['environment']>

function environmentCredentials(environment: Environment): Credentials {
  const accessKeyId = environment['AWS_ACCESS_KEY_ID']
  const secretAccessKey = environment['AWS_SECRET_ACCESS_KEY']
  const sessionToken = environment['AWS_SESSION_TOKEN']
  if (!accessKeyId || !secretAccessKey)
    throw new Error('S3_ENDPOINT is set: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY have to be set too')
  return { accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}) }
}

/** Whether the environment names a service. */
export function hasServiceInEnvironment(): boolean {
  return Boolean(process.env['S3_ENDPOINT'])
}

/** Whether the service that tests run against honours `If-None-Match: *`, which persistent stores need. */
export function hasConditionalWrites(environment: Environment = process.env): boolean {
  return !environment['S3_ENDPOINT'] || environment['S3_CONDITIONAL_WRITES'] !== '0'
}

async function listObjects(client: S3Client, bucket: string, prefix: string): Promise<ListedObject[]> {
  const objects: ListedObject[] = []
  let token: string | undefined
  do {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ContinuationToken: token }),
    )
    for (const { Key, Size } of page.Contents ?? []) objects.push({ key: Key!, bytes: Size ?? 0 })
    token = page.NextContinuationToken
  } while (token !== undefined)
  return objects
}

/** Deletes what is under a prefix, one by one where the service refuses to delete many. */
async function deleteObjects(client: S3Client, bucket: string, prefix: string): Promise<void> {
  const keys = (await listObjects(client, bucket, prefix)).map(({ key }) => key)
  for (let start = 0; start < keys.length; start += 1000) {
    const some = keys.slice(start, start + 1000)
    const Delete = { Objects: some.map((Key) => ({ Key })), Quiet: true }
    const refused = await client.send(new DeleteObjectsCommand({ Bucket: bucket, Delete })).then(
      ({ Errors = [] }) => Errors.map(({ Key }) => Key!),
      () => some,
    )
    for (const Key of refused) await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }))
  }
}

/** The target to test against. */
export async function s3Target(options: TargetOptions = {}): Promise<S3Target> {
  const { embedded = false, reuseProcess = false, environment = process.env, ...serverOptions } = options
  const endpoint = environment['S3_ENDPOINT']
  const server = embedded || !endpoint ? await startServer(serverOptions, reuseProcess) : undefined
  const credentials = server?.credentials ?? environmentCredentials(environment)
  const forcePathStyle = server !== undefined || environment['S3_FORCE_PATH_STYLE'] !== '0'
  const region = server?.region ?? (environment['AWS_REGION'] || 'us-east-1')
  const clientConfig: S3ClientConfig = {
    endpoint: server?.endpoint ?? endpoint!,
    region,
    credentials: { ...credentials } as NonNullable<S3ClientConfig['credentials']>,
    forcePathStyle,
  }
  const clients: S3Client[] = []
  const client = (config: S3ClientConfig = {}) => {
    const made = new S3Client({ ...clientConfig, ...config })
    clients.push(made)
    return made
  }
  const own = client()
  const namedBucket = server?.bucket ?? environment['S3_BUCKET']
  const bucket = namedBucket || `spillway-test-${randomBytes(6).toString('hex')}`
  if (!namedBucket) await own.send(new CreateBucketCommand({ Bucket: bucket }))

  const list = (prefix = '') => listObjects(own, bucket, prefix)
  const clear = (prefix = '') => deleteObjects(own, bucket, prefix)
  let closing: Promise<void> | undefined
  const close = () => {
    closing ??= (async () => {
      if (!namedBucket) {
        await clear()
        await own.send(new DeleteBucketCommand({ Bucket: bucket }))
      }
      for (const made of clients) made.destroy()
      await server?.close()
    })()
    return closing
  }
  return {
    endpoint: server?.endpoint ?? endpoint!,
    region,
    bucket,
    credentials,
    forcePathStyle,
    conditionalWrites: server !== undefined || hasConditionalWrites(environment),
    canInjectFaults: server !== undefined,
    server,
    clientConfig,
    client,
    prefix: () => `test-${randomBytes(8).toString('hex')}/`,
    list,
    clear,
    close,
    [Symbol.asyncDispose]: close,
  }
}
