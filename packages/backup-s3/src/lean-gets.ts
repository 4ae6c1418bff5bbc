import { randomUUID } from 'node:crypto'
import { S3Client } from '@aws-sdk/client-s3'
import type { ServiceAnswer } from './request-sender.ts'
import { takesPieces } from './upload-body.ts'

/**
 * GETs of pages without the way through the SDK, which needs a third of a millisecond and 250 KB of garbage to find out
 * anew what is the same for all of them.
 *
 *   first GET through the client ─▶ as it is about to be signed: the pattern
 *   next GETs ─▶ pattern with another key and range ─▶ the client's signer ─▶ the client's handler ─▶ status, headers
 *   every thousandth, and the first after any refusal ─▶ through the client, for a new pattern
 *
 * Credentials, region and clock are the signer's own affair each time. Only with `pageHttpHandler()`, and only while the
 * client does nothing that another client would not do: middleware of the application sees every request.
 */
export class LeanGets {
  readonly #client: S3Client
  /** What all keys begin with; behind it they consist of characters that need no escape. */
  readonly #prefix: string
  #pattern: Pattern | undefined
  #left = 0

  constructor(client: S3Client, prefix: string) {
    this.#client = client
    this.#prefix = prefix
  }

  /** Whether the next GET can do without the client's way. */
  get isReady(): boolean {
    return this.#pattern !== undefined
  }

  /** Takes a GET that the client is about to sign for a pattern, where that is allowed. */
  learn(request: SignableRequest, context: object, { key }: LeanGet): void {
    this.#pattern = undefined
    const { selectedHttpAuthScheme: scheme } = (context as SigningContext).__smithy_context ?? {}
    const tail = key.slice(this.#prefix.length)
    if (scheme?.httpAuthOption?.schemeId !== 'aws.auth#sigv4' || typeof scheme.signer?.sign !== 'function')
      return
    if (!request.path.endsWith(tail) || !isPlain(this.#client)) return
    const headers = Object.entries(request.headers).filter(([name]) => !ownHeaders.has(name.toLowerCase()))
    this.#pattern = {
      request: { ...request, headers: Object.fromEntries(headers) },
      path: request.path.slice(0, -tail.length),
      signer: scheme.signer,
      properties: scheme.httpAuthOption.signingProperties ?? {},
    }
    this.#left = getsPerPattern
  }

  /** One GET. Rejects with what the SDK would reject with, as far as it is looked at. */
  async send({ key, range, etag }: LeanGet, options: object): Promise<ServiceAnswer> {
    const pattern = this.#pattern!
    if (--this.#left === 0) this.#pattern = undefined
    const properties = { ...pattern.properties }
    const headers: Record<string, string> = { ...pattern.request.headers, range }
    headers['amz-sdk-invocation-id'] = randomUUID()
    if (etag !== undefined) headers['if-match'] = etag
    const path = pattern.path + key.slice(this.#prefix.length)
    const request = { ...pattern.request, path, headers }
    try {
      const signed = await pattern.signer.sign(request, undefined, properties)
      const handler = this.#client.config.requestHandler as unknown as Handler
      const { response } = await handler.handle(signed, options)
      if (response.statusCode >= 300) throw await refusal(response)
      pattern.signer.successHandler?.(response, properties)
      return {
        $metadata: { httpStatusCode: response.statusCode },
        ...(response.headers['etag'] === undefined ? {} : { ETag: response.headers['etag'] }),
        ...(response.headers['content-range'] === undefined
          ? {}
          : { ContentRange: response.headers['content-range'] }),
        ContentLength: Number(response.headers['content-length']),
        Body: response.body,
      }
    } catch (error) {
      this.#pattern = undefined
      if ((error as Refusal).$response === undefined) throw error
      // It sets the clock by the answer, and throws the error again.
      return pattern.signer.errorHandler?.(properties)(error) as never
    }
  }
}

/** What is different from one GET to the next. */
export interface LeanGet {
  readonly key: string
  /** The header, as `bytes=0-4095`. */
  readonly range: string
  readonly etag: string | undefined
}

/** What is not taken over from the pattern. */
const ownHeaders: ReadonlySet<string> = new Set(['range', 'if-match', 'amz-sdk-invocation-id'])

/** GETs after which the client is asked again: its endpoint, or what it does with requests, may have changed. */
const getsPerPattern = 1000

interface Pattern {
  readonly request: SignableRequest
  readonly path: string
  readonly signer: Signer
  readonly properties: object
}

/** The parts of the SDK's inside that are needed. Where one is missing there is no pattern. */
interface SignableRequest {
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}
interface Signer {
  sign(request: SignableRequest, identity: undefined, properties: object): Promise<SignableRequest>
  successHandler?(response: Response, properties: object): void
  errorHandler?(properties: object): (error: unknown) => never
}
interface SigningContext {
  readonly __smithy_context?: {
    readonly selectedHttpAuthScheme?: {
      readonly httpAuthOption?: { readonly schemeId?: string; readonly signingProperties?: object }
      readonly signer?: Signer
    }
  }
}
interface Response {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: AsyncIterable<Uint8Array>
}
interface Handler {
  handle(request: SignableRequest, options: object): Promise<{ response: Response }>
}
interface Refusal extends Error {
  readonly $response?: Response
}

/** The error for an answer that is none, with what `serviceError` looks at. */
async function refusal(response: Response): Promise<Refusal> {
  const chunks: Uint8Array[] = []
  for await (const chunk of response.body) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString()
  const name = /<Code>([^<]*)<\/Code>/.exec(text)?.[1] ?? 'UnknownError'
  const message = /<Message>([^<]*)<\/Message>/.exec(text)?.[1] ?? 'UnknownError'
  const $metadata = { httpStatusCode: response.statusCode }
  return Object.assign(new Error(message), { name, $metadata, $response: response })
}

let plainStack: string | undefined

/** Whether the client does what any `S3Client` does, and nobody listens in. */
function isPlain(client: S3Client): boolean {
  const { send } = client
  const handler = client.config.requestHandler as { [takesPieces]?: boolean }
  if (handler[takesPieces] !== true || send !== S3Client.prototype.send) return false
  // How instrumentation marks what it has wrapped.
  if ('__wrapped' in send || '__original' in send) return false
  if (plainStack === undefined) {
    const credentials = { accessKeyId: 'none', secretAccessKey: 'none' }
    plainStack = stackOf(new S3Client({ region: 'us-east-1', credentials }))
  }
  return stackOf(client) === plainStack
}

function stackOf(client: S3Client): string {
  return client.middlewareStack.identify().sort().join('\n')
}
