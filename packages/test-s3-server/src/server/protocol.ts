/**
 * What the S3 test server and the process that started it say to each other. Plain data, sent over the IPC channel:
 *
 *   harness ── { id, command, … } ──▶ server process
 *   harness ◀─ { id, result } ─────── server process     (or { id, failure })
 *
 * The server's end of the channel closing is its order to end, so it never outlives the process that started it.
 */

/** The S3 operations that the server knows. */
export const operations = [
  'ListBuckets',
  'CreateBucket',
  'HeadBucket',
  'DeleteBucket',
  'GetBucketLocation',
  'CreateSession',
  'ListObjectsV2',
  'DeleteObjects',
  'PutObject',
  'GetObject',
  'HeadObject',
  'DeleteObject',
] as const

export type Operation = (typeof operations)[number]

/** A key pair that the server accepts. */
export interface AcceptedCredentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  /** Temporary credentials: the token that has to come with them. */
  readonly sessionToken?: string | undefined
  /** Whether they are of the session of a directory bucket, which are good for that alone. */
  readonly isSession?: boolean | undefined
  /** Operations that this user is refused, with 403 AccessDenied. */
  readonly deny?: readonly Operation[] | undefined
}

/** Ways in which other servers differ from AWS S3. All off by default. */
export interface Quirks {
  /** Error answers carry no `<Message>` (RADOS Gateway). */
  readonly noMessage?: boolean | undefined
  /** CRC32 is neither looked at nor stored nor returned (RADOS Gateway, Swift). */
  readonly noChecksums?: boolean | undefined
  /** 411 MissingContentLength for `aws-chunked` bodies (RADOS Gateway). */
  readonly refuseAwsChunked?: boolean | undefined
  /** `If-Match` never matches an ETag in quotes (RADOS Gateway). */
  readonly bareIfMatchOnly?: boolean | undefined
  /** PutObject answers with an empty ETag, as RADOS Gateway does where an upload is completed. */
  readonly emptyETag?: boolean | undefined
  /** 501 for `If-None-Match` and `If-Match` on PutObject (Swift). */
  readonly refuseConditionalPut?: boolean | undefined
  /** Preconditions of PutObject are not looked at (old servers). */
  readonly ignoreConditionalPut?: boolean | undefined
  /** 400 for DeleteObjects without `Content-MD5` (Swift, old servers). */
  readonly requireContentMd5?: boolean | undefined
}

/** What Ceph's RADOS Gateway 16 does differently. */
export const rgwQuirks: Quirks = {
  noMessage: true,
  noChecksums: true,
  refuseAwsChunked: true,
  bareIfMatchOnly: true,
}

export interface ServerOptions {
  /** Port on 127.0.0.1. @default 0, any free one */
  readonly port?: number | undefined
  /** Signatures for another region are refused. @default 'us-east-1' */
  readonly region?: string | undefined
  /** @default one pair: `test-access-key`, `test-secret-key` */
  readonly credentials?: readonly AcceptedCredentials[] | undefined
  /** Buckets that exist from the start. @default ['test'] */
  readonly buckets?: readonly string[] | undefined
  readonly quirks?: Quirks | undefined
  /** ETags are the MD5 of the content; otherwise a unique token, which is cheaper and what AWS gives under KMS. @default false */
  readonly md5ETags?: boolean | undefined
  /** Stored bytes beyond which PutObject answers 403 QuotaExceeded. @default unlimited */
  readonly quotaBytes?: number | undefined
  /** Size beyond which PutObject answers 400 EntityTooLarge. @default 5 GiB, as AWS S3 */
  readonly maxObjectBytes?: number | undefined
  /** Most keys in one page of a listing, whatever the client asks for. @default 1000 */
  readonly maxListKeys?: number | undefined
  /** Added to the server's clock: skewed signatures are refused, `Date` and `Last-Modified` follow. @default 0 */
  readonly clockOffsetMs?: number | undefined
  /** Requests that the log keeps; the oldest go first. @default 20,000 */
  readonly logRequests?: number | undefined
  /** Memory for bodies to have ready from the start, so that a benchmark does not wait for the kernel's. @default 0 */
  readonly warmBytes?: number | undefined
  /** Seed of the faults that come by chance. @default 1 */
  readonly seed?: number | undefined
}

/** What goes wrong with a request. `request` is before the operation is done, `answer` is after. */
export type Fault =
  /** Waits, then goes on. The operation is done even when the client has gone meanwhile. */
  | {
      readonly kind: 'delay'
      readonly delayMs: number
      readonly jitterMs?: number
      readonly when?: 'request' | 'answer'
    }
  /** Takes the request and never answers. */
  | { readonly kind: 'hang'; readonly when?: 'request' | 'answer' }
  /** Refuses with an S3 error. */
  | {
      readonly kind: 'error'
      readonly status: number
      readonly code: string
      readonly message?: string
      readonly headers?: Readonly<Record<string, string>>
    }
  /** Answers something that is no S3 answer. */
  | {
      readonly kind: 'foreign'
      readonly status: number
      readonly contentType: string
      readonly body: string
    }
  /** Drops the connection: before anything is done, or after (a lost answer). */
  | { readonly kind: 'drop'; readonly when: 'request' | 'answer' }
  /** Ends the connection in the answer: after `afterBytes` of its body, by default half of it; without a body, in the head. */
  | { readonly kind: 'cut'; readonly afterBytes?: number }
  /** Stops sending after `afterBytes` of the body, by default half: for `forMs`, or for ever. */
  | { readonly kind: 'stall'; readonly afterBytes?: number; readonly forMs?: number }
  /** One bit of the answer's body arrives wrong; by default in the middle. */
  | { readonly kind: 'flip'; readonly atByte?: number }
  /** One bit of what is stored is wrong, after all checks passed. */
  | { readonly kind: 'flipStored'; readonly atByte?: number }
  /** The body is `bytes` shorter than the range asked for, and the headers agree with it. */
  | { readonly kind: 'truncate'; readonly bytes: number }
  /** The body comes in bits of `bytes`, one every `everyMs`. */
  | { readonly kind: 'trickle'; readonly bytes: number; readonly everyMs: number }
  /** Headers of the answer are others; null: missing. */
  | { readonly kind: 'headers'; readonly headers: Readonly<Record<string, string | null>> }
  /** A page of a listing that is not the last does not say how it goes on. */
  | { readonly kind: 'cutListing' }
  /** A range is not looked at: 200 and the whole object. */
  | { readonly kind: 'ignoreRange' }
  /** DeleteObjects keeps the keys that contain `keyIncludes` (all by default) and reports `code` for each. */
  | { readonly kind: 'deleteErrors'; readonly code: string; readonly keyIncludes?: string }
  /** Kills a process with SIGKILL, before the operation is done or after it. No answer is sent. */
  | { readonly kind: 'kill'; readonly pid: number; readonly when: 'request' | 'answer' }

/** Which requests a fault befalls: of those that match, `times` from the `from`-th on, each with probability `chance`. */
export interface FaultRule {
  /** @default any operation */
  readonly operation?: Operation | readonly Operation[] | undefined
  /** Only requests whose key, or listed prefix, contains this. */
  readonly keyIncludes?: string | undefined
  /** Only requests that were signed with this key. */
  readonly accessKeyId?: string | undefined
  /** The first matching request it befalls, counted from 1 since the rule was set. @default 1 */
  readonly from?: number | undefined
  /** @default Infinity */
  readonly times?: number | undefined
  /** @default 1 */
  readonly chance?: number | undefined
  readonly fault: Fault
}

/** One request, as the server saw it. */
export interface RequestRecord {
  /** From 1, in the order of arrival. */
  readonly serial: number
  readonly operation: Operation | 'unknown'
  readonly method: string
  readonly bucket: string
  readonly key: string
  /** Who signed it; empty as long as that is not known. */
  readonly accessKeyId: string
  readonly query: string
  readonly range: string | undefined
  /** 0 while under way, and when the connection ended without an answer. */
  readonly status: number
  /** S3 error code of the answer. */
  readonly code: string | undefined
  /** Bytes of the request's body. */
  readonly bytesIn: number
  /** Bytes of the answer's body that were handed to the socket. */
  readonly bytesOut: number
  /** Kinds of the faults that befell it. */
  readonly faults: readonly Fault['kind'][]
  /** The request's headers that decide something; see `keptHeaders`. */
  readonly headers: Readonly<Record<string, string>>
  /** Number of the TCP connection, from 1. */
  readonly connection: number
  /** Milliseconds since the server started. */
  readonly startedMs: number
  readonly endedMs: number | undefined
  /** Requests under way when it arrived, itself included. */
  readonly underWay: number
}

export interface OperationCounters {
  readonly requests: number
  readonly bytesIn: number
  readonly bytesOut: number
  /** Answers by status, `0` for those that never ended well. */
  readonly statuses: Readonly<Record<string, number>>
}

export interface ServerCounters {
  readonly operations: Readonly<Partial<Record<Operation | 'unknown', OperationCounters>>>
  readonly requests: number
  readonly bytesIn: number
  readonly bytesOut: number
  readonly connections: number
  readonly openConnections: number
  readonly underWay: number
  readonly mostUnderWay: number
  /** CPU time of the server process, user and system. */
  readonly cpuMs: number
  readonly storedObjects: number
  readonly storedBytes: number
}

export type Command =
  | { readonly command: 'addFault'; readonly rule: FaultRule }
  | { readonly command: 'removeFault'; readonly ruleId: number }
  | { readonly command: 'clearFaults' }
  /** How often each rule came true, by rule id. */
  | { readonly command: 'fired' }
  | { readonly command: 'log'; readonly operation?: Operation | undefined; readonly after: number }
  | { readonly command: 'clearLog' }
  | { readonly command: 'counters' }
  | { readonly command: 'setCredentials'; readonly credentials: readonly AcceptedCredentials[] }
  | { readonly command: 'setQuirks'; readonly quirks: Quirks }
  | { readonly command: 'setClock'; readonly offsetMs: number }
  | { readonly command: 'setQuota'; readonly quotaBytes: number }
  /** Ends all connections and refuses new ones, or takes them again. What is stored stays. */
  | { readonly command: 'outage'; readonly out: boolean }
  /** A server with nothing of the former in it takes its place, on a port of its own: the result. */
  | { readonly command: 'renew'; readonly options: ServerOptions }

export type CommandMessage = Command & { readonly id: number }
export interface AnswerMessage {
  readonly id: number
  readonly result?: unknown
  readonly failure?: string
}
/** The first message of the server process: it listens. */
export interface ReadyMessage {
  readonly ready: { readonly port: number }
}

/** Request headers that the log keeps. */
export const keptHeaders = [
  'content-length',
  'content-md5',
  'expect',
  'if-match',
  'if-none-match',
  'x-amz-checksum-crc32',
  'x-amz-checksum-sha256',
  'x-amz-checksum-mode',
  'x-amz-content-sha256',
  'x-amz-expected-bucket-owner',
  'x-amz-request-payer',
  'x-amz-s3session-token',
  'x-amz-server-side-encryption',
  'x-amz-server-side-encryption-aws-kms-key-id',
  'x-amz-storage-class',
  'x-amz-tagging',
  'user-agent',
] as const
