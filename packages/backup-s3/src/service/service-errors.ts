import { type ErrorCode, isErrorCode, isSpillwayError, SpillwayError } from '@spillway/core'

/** What the SDK and the service say when they fail, as far as it can be told. */
interface ServiceFailure {
  readonly name?: string
  readonly message?: string
  readonly code?: unknown
  readonly Code?: unknown
  readonly $metadata?: { readonly httpStatusCode?: number }
  readonly $response?: { readonly statusCode?: number; readonly headers?: Record<string, string> }
}

interface Meaning {
  readonly code: ErrorCode
  readonly text: string
  readonly retryable: boolean
}

const meaning = (code: ErrorCode, text: string, retryable = false): Meaning => ({ code, text, retryable })
const throttled = meaning('EAGAIN', 'the service asks to slow down', true)
const expired = meaning('EACCES', 'the credentials have expired')
const wrongRegion = meaning('EINVAL', 'the bucket is in another region than the client')
const unreachable = meaning('EIO', 'the service cannot be reached', true)
const broken = meaning('EIO', 'the connection broke', true)
const serverFault = meaning('EIO', 'the service failed', true)
const untrusted = meaning(
  'EACCES',
  'the certificate of the service is not trusted; tls: { ca } of pageHttpHandler() takes one of your own',
)
const conflict = meaning('EBUSY', 'another request for this object is under way', true)
const silent = meaning('ETIMEDOUT', 'no answer in time', true)

/** By the service's error code, or the system's. Servers often leave the message out, so names decide. */
const byName: Readonly<Record<string, Meaning>> = {
  PreconditionFailed: meaning('EEXIST', 'the object is there already, or is another than it was'),
  NoSuchBucket: meaning('ENOENT', 'there is no such bucket'),
  NoSuchKey: meaning('ENOENT', 'there is no such object'),
  NotFound: meaning('ENOENT', 'there is no such object or bucket'),
  AccessDenied: meaning('EACCES', 'the service refuses the permission'),
  AllAccessDisabled: meaning('EACCES', 'the service refuses the permission'),
  AccountProblem: meaning('EACCES', 'the service refuses the account'),
  InvalidAccessKeyId: meaning('EACCES', 'the credentials are wrong: unknown access key'),
  SignatureDoesNotMatch: meaning('EACCES', 'the credentials are wrong: the secret key does not fit'),
  InvalidToken: meaning('EACCES', 'the credentials are wrong: bad session token'),
  CredentialsProviderError: meaning('EACCES', 'the client has no credentials'),
  TokenProviderError: meaning('EACCES', 'the client has no credentials'),
  ExpiredToken: expired,
  ExpiredTokenException: expired,
  TokenRefreshRequired: expired,
  RequestExpired: expired,
  RequestTimeTooSkewed: meaning(
    'EINVAL',
    'the clock of this machine and that of the service differ too much',
  ),
  PermanentRedirect: wrongRegion,
  TemporaryRedirect: wrongRegion,
  Redirect: wrongRegion,
  AuthorizationHeaderMalformed: wrongRegion,
  IllegalLocationConstraintException: wrongRegion,
  IncorrectEndpoint: wrongRegion,
  QuotaExceeded: meaning('EDQUOT', 'the quota of the bucket or user is used up'),
  QuotaExceededException: meaning('EDQUOT', 'the quota of the bucket or user is used up'),
  ServiceQuotaExceeded: meaning('EDQUOT', 'the quota of the bucket or user is used up'),
  XMinioStorageFull: meaning('ENOSPC', 'the service is full'),
  InsufficientStorage: meaning('ENOSPC', 'the service is full'),
  EntityTooLarge: meaning('EFBIG', 'the object is larger than the service allows'),
  InvalidStorageClass: meaning('EINVAL', 'the service does not know this storage class'),
  NotImplemented: meaning('ENOSYS', 'the service cannot do that'),
  MethodNotAllowed: meaning('ENOSYS', 'the service cannot do that'),
  BadDigest: meaning('EIO', 'the body was damaged on the way', true),
  XAmzContentSHA256Mismatch: meaning('EIO', 'the body was damaged on the way', true),
  XAmzContentChecksumMismatch: meaning('EIO', 'the body was damaged on the way', true),
  IncompleteBody: broken,
  RequestTimeout: meaning('ETIMEDOUT', 'the service waited too long for the body', true),
  SlowDown: throttled,
  Throttling: throttled,
  ThrottlingException: throttled,
  TooManyRequests: throttled,
  TooManyRequestsException: throttled,
  RequestLimitExceeded: throttled,
  ServiceUnavailable: throttled,
  InternalError: serverFault,
  ConditionalRequestConflict: conflict,
  OperationAborted: conflict,
  TimeoutError: silent,
  ECONNREFUSED: unreachable,
  ENOTFOUND: unreachable,
  EAI_AGAIN: unreachable,
  EHOSTUNREACH: unreachable,
  ENETUNREACH: unreachable,
  ECONNRESET: broken,
  EPIPE: broken,
  ECONNABORTED: broken,
  UND_ERR_SOCKET: broken,
  HPE_INVALID_CONSTANT: meaning('EINVAL', 'the endpoint does not answer like S3'),
  ETIMEDOUT: silent,
  EPROTO: meaning(
    'EINVAL',
    'the endpoint does not speak TLS as it should; is it one of http://, not https://?',
  ),
  ERR_TLS_CERT_ALTNAME_INVALID: meaning('EACCES', 'the certificate of the service is for another name'),
  ERR_TLS_HANDSHAKE_TIMEOUT: silent,
  CERT_HAS_EXPIRED: meaning('EACCES', 'the certificate of the service has expired'),
  CERT_NOT_YET_VALID: meaning(
    'EACCES',
    'the certificate of the service is not valid yet; is the clock right?',
  ),
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
}

/** Codes of OpenSSL come in hundreds. */
function meaningOfTls(code: unknown): Meaning | undefined {
  if (typeof code !== 'string') return undefined
  if (code.startsWith('ERR_SSL_')) return byName['EPROTO']
  if (code.startsWith('CERT_') || code.startsWith('UNABLE_TO_')) return untrusted
  return undefined
}

/** What answers mean whose name says nothing, as those of proxies and load balancers. */
const byStatus: Readonly<Record<number, Meaning | undefined>> = {
  301: wrongRegion,
  307: wrongRegion,
  401: byName['AccessDenied'],
  403: byName['AccessDenied'],
  404: byName['NotFound'],
  405: byName['NotImplemented'],
  407: meaning('EACCES', 'the proxy wants credentials'),
  408: meaning('ETIMEDOUT', 'the service waited too long for the request', true),
  409: conflict,
  412: byName['PreconditionFailed'],
  413: byName['EntityTooLarge'],
  417: meaning('EAGAIN', 'the service does not know Expect: 100-continue', true),
  421: broken,
  425: throttled,
  429: throttled,
  501: byName['NotImplemented'],
  503: throttled,
  507: byName['InsufficientStorage'],
}

/** The status of an answer, where there was one. */
export function statusOf(failure: unknown): number | undefined {
  const { $metadata, $response } = failure as ServiceFailure
  return $metadata?.httpStatusCode ?? $response?.statusCode
}

/** The service's own name for a failure. */
export function serviceName(failure: unknown): string {
  const { name, code, Code } = (failure ?? {}) as ServiceFailure
  const candidates = [Code, name, code].filter((value) => typeof value === 'string') as string[]
  return candidates.find((candidate) => candidate in byName) ?? candidates[0] ?? 'Error'
}

function meaningOf(failure: unknown): Meaning | undefined {
  const { code } = (failure ?? {}) as ServiceFailure
  const named = byName[serviceName(failure)] ?? (typeof code === 'string' ? byName[code] : undefined)
  if (named !== undefined) return named
  const tls = meaningOfTls(code)
  if (tls !== undefined) return tls
  const status = statusOf(failure)
  if (status !== undefined) {
    if (byStatus[status] !== undefined) return byStatus[status]
    if (status >= 500) return serverFault
    if (status >= 400) return meaning('EINVAL', 'the service refuses the request')
  }
  if (failure instanceof SyntaxError || (status !== undefined && status < 400)) {
    return meaning('EINVAL', 'the endpoint does not answer like S3')
  }
  return undefined
}

/**
 * The error for a request that failed: a `SpillwayError` that keeps the service's own code and message, with the
 * failure as its `cause`. What is not known is not translated.
 */
export function serviceError(failure: unknown, request: string, backup: string): Error {
  if (isSpillwayError(failure)) return failure
  const known = meaningOf(failure)
  if (known === undefined) {
    const code = (failure as { code?: unknown } | null)?.code
    if (isErrorCode(code)) return new SpillwayError(code, request, { backup, cause: failure })
    return failure instanceof Error ? failure : new Error(String(failure))
  }
  const { message, $response } = failure as ServiceFailure
  const own = [serviceName(failure), statusOf(failure), message === 'UnknownError' ? '' : message]
  const region = $response?.headers?.['x-amz-bucket-region']
  const where = region === undefined ? '' : `; it is in ${region}`
  return new SpillwayError(
    known.code,
    `${request}: ${known.text}${where} (${own.filter(Boolean).join(', ')})`,
    { backup, cause: failure, retryable: known.retryable },
  )
}

/** Whether the client did not find the credentials to sign a request with. */
export function lacksCredentials(error: unknown): boolean {
  const name = serviceName((error as Error | undefined)?.cause)
  return name === 'CredentialsProviderError' || name === 'TokenProviderError'
}

const unreachableCodes: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'ENETUNREACH',
])

/** Whether a request did not come so far as to have a connection. */
export function isUnreachable(error: unknown): boolean {
  const { code } = ((error as Error | undefined)?.cause ?? {}) as ServiceFailure
  return isSpillwayError(error) && unreachableCodes.has(code)
}

/** Whether the SDK found that a whole object is not what the service's checksum of it says. */
export function isChecksumMismatch(failure: unknown): boolean {
  return failure instanceof Error && failure.message.startsWith('Checksum mismatch')
}

/** Whether the service may have done what it was asked, although it said something else or nothing. */
export function mayHaveHappened(error: unknown): boolean {
  if (!isSpillwayError(error) || !error.retryable || error.code === 'EAGAIN' || error.code === 'EINTR')
    return false
  const { code } = (error.cause ?? {}) as ServiceFailure
  return code !== 'ECONNREFUSED' && code !== 'ENOTFOUND' && code !== 'EAI_AGAIN'
}

/** Whether the budget refused a request before it was sent. A quota of the service has the service's error as its cause. */
export function isOverBudget(error: unknown): boolean {
  return isSpillwayError(error) && error.code === 'EDQUOT' && error.cause === undefined
}

/** The result of a request for an object; undefined when the object is not there. */
export async function unlessMissing<T>(request: Promise<T>): Promise<T | undefined> {
  try {
    return await request
  } catch (error) {
    const isMissing =
      isSpillwayError(error) && error.code === 'ENOENT' && serviceName(error.cause) !== 'NoSuchBucket'
    if (isMissing) return undefined
    throw error
  }
}
