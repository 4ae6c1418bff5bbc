/** The things that go wrong with S3, by name. */
import type { Fault } from './server/protocol.ts'

/** Slow, but done: `delayMs` plus up to `jitterMs` before the operation. */
export const delayed = (delayMs: number, jitterMs = 0): Fault => ({ kind: 'delay', delayMs, jitterMs })
/** Done at once, told late. */
export const answeredLate = (delayMs: number): Fault => ({ kind: 'delay', delayMs, when: 'answer' })
/** Taken, not done and never answered. */
export const hung: Fault = { kind: 'hang' }
/** Done and never answered, on a connection that stays open. */
export const silentAfterDone: Fault = { kind: 'hang', when: 'answer' }
/** The connection is dropped and nothing was done. */
export const dropped: Fault = { kind: 'drop', when: 'request' }
/** The connection is dropped after the operation was done. */
export const lostAnswer: Fault = { kind: 'drop', when: 'answer' }
/** The connection ends after `afterBytes` of the answer's body, by default half of it. */
export const cut = (afterBytes?: number): Fault =>
  afterBytes === undefined ? { kind: 'cut' } : { kind: 'cut', afterBytes }
/** The answer's body stops after `afterBytes` for `forMs`; by default half way and for ever. */
export const stalled = (options: { afterBytes?: number; forMs?: number } = {}): Fault => ({
  kind: 'stall',
  ...options,
})
/** The answer's body comes in bits of `bytes`, one every `everyMs`. */
export const trickling = (bytes: number, everyMs: number): Fault => ({ kind: 'trickle', bytes, everyMs })
/** The answer has other headers; null takes one away. */
export const withHeaders = (headers: Readonly<Record<string, string | null>>): Fault => ({
  kind: 'headers',
  headers,
})
/** A page of a listing does not say how it goes on. */
export const cutListing: Fault = { kind: 'cutListing' }
/** Any refusal, in the service's words. */
export const refused = (status: number, code: string): Fault => refusal(status, code, code)
/** One bit of the answer arrives wrong. */
export const flipped = (atByte?: number): Fault =>
  atByte === undefined ? { kind: 'flip' } : { kind: 'flip', atByte }
/** One bit of what a PutObject stored is wrong for good. */
export const flippedInStore = (atByte?: number): Fault =>
  atByte === undefined ? { kind: 'flipStored' } : { kind: 'flipStored', atByte }
/** Answers are `bytes` short, and their headers agree with that. */
export const truncated = (bytes: number): Fault => ({ kind: 'truncate', bytes })
/** Ranges are not looked at: 200 and the whole object. */
export const rangeIgnored: Fault = { kind: 'ignoreRange' }
/** DeleteObjects reports `code` for the keys that contain `keyIncludes`, and keeps them. */
export const deleteErrors = (code = 'InternalError', keyIncludes = ''): Fault => ({
  kind: 'deleteErrors',
  code,
  keyIncludes,
})
/** Kills a process at the moment its request comes (`request`) or has been done (`answer`). */
export const killed = (pid: number, when: 'request' | 'answer'): Fault => ({ kind: 'kill', pid, when })

function refusal(status: number, code: string, message: string, headers?: Record<string, string>): Fault {
  return headers === undefined
    ? { kind: 'error', status, code, message }
    : { kind: 'error', status, code, message, headers }
}

export const internalError = refusal(
  500,
  'InternalError',
  'We encountered an internal error. Please try again.',
)
export const slowDown = refusal(503, 'SlowDown', 'Please reduce your request rate.')
export const serviceUnavailable = refusal(503, 'ServiceUnavailable', 'Please reduce your request rate.')
/** 429, with the seconds to wait in `Retry-After`. */
export const tooManyRequests = (retryAfterSeconds?: number): Fault =>
  refusal(
    429,
    'TooManyRequests',
    'Please reduce your request rate.',
    retryAfterSeconds === undefined ? undefined : { 'retry-after': String(retryAfterSeconds) },
  )
export const requestTimeout = refusal(
  400,
  'RequestTimeout',
  'Your socket connection to the server was not read from or written to within the timeout period.',
)
/** 409, as AWS answers a conditional write that raced with another: to be tried again. */
export const conditionalConflict = refusal(
  409,
  'ConditionalRequestConflict',
  'The conditional request cannot succeed due to a conflicting operation against this resource.',
)
export const quotaExceeded = refusal(403, 'QuotaExceeded', 'The quota of this user is used up.')
export const accessDenied = refusal(403, 'AccessDenied', 'Access Denied')
export const expiredToken = refusal(400, 'ExpiredToken', 'The provided token has expired.')
export const invalidAccessKeyId = refusal(
  403,
  'InvalidAccessKeyId',
  'The AWS Access Key Id you provided does not exist in our records.',
)
export const signatureDoesNotMatch = refusal(
  403,
  'SignatureDoesNotMatch',
  'The request signature we calculated does not match the signature you provided.',
)
export const requestTimeTooSkewed = refusal(
  403,
  'RequestTimeTooSkewed',
  'The difference between the request time and the current time is too large.',
)
export const noSuchBucket = refusal(404, 'NoSuchBucket', 'The specified bucket does not exist.')
export const noSuchKey = refusal(404, 'NoSuchKey', 'The specified key does not exist.')
export const entityTooLarge = refusal(
  400,
  'EntityTooLarge',
  'Your proposed upload exceeds the maximum allowed size.',
)
export const invalidStorageClass = refusal(
  400,
  'InvalidStorageClass',
  'The storage class you specified is not valid',
)
/** The bucket lies in another region, told as AWS S3 tells it: 301, or 400 where the signature names the wrong one. */
export const movedTo = (region: string): Fault =>
  refusal(
    301,
    'PermanentRedirect',
    'The bucket you are attempting to access must be addressed using the specified endpoint.',
    { 'x-amz-bucket-region': region },
  )
export const wrongRegion = (region: string): Fault =>
  refusal(
    400,
    'AuthorizationHeaderMalformed',
    `The authorization header is malformed; the region is wrong; expecting '${region}'`,
    { 'x-amz-bucket-region': region },
  )
/** A web server that is no S3 service. */
export const webPage = (status = 200): Fault => ({
  kind: 'foreign',
  status,
  contentType: 'text/html',
  body: '<!doctype html><title>Welcome</title><p>It works!',
})
