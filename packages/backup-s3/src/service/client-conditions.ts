import { S3Client } from '@aws-sdk/client-s3'

/**
 * Whether a client does with a request just what every client of the SDK does. Only then may a request go past its
 * middleware: an application's own would not see it. A wrap that was made before this file was imported cannot be told
 * from the SDK itself.
 */

/** What is compared of a client, beside its public face. */
interface ClientInside {
  readonly config: Readonly<Record<string, unknown>>
  readonly middlewareStack: Record<string, unknown> & { identify(): string[] }
}

const sendAtImport = S3Client.prototype.send
/** The methods of a stack that change what happens to a request. */
const changing = ['add', 'addRelativeTo', 'use', 'remove', 'removeByTag'] as const
/** Parts of a client's configuration that may be exchanged while it is in use. */
const exchangeable = [
  'requestHandler',
  'credentials',
  'endpoint',
  'region',
  'signer',
  'logger',
  'retryStrategy',
]

/** Changes of a middleware stack, counted; one record for all backups that use the client. */
interface StackChanges {
  count: number
  /** Something took the name of something else, which `identify` does not show. */
  hasOverride: boolean
}
const changesOf = new WeakMap<object, StackChanges>()

let plain: ClientInside | undefined
/** A client that nobody has touched. */
function plainClient(): ClientInside {
  plain ??= inside(
    new S3Client({ region: 'us-east-1', credentials: { accessKeyId: 'none', secretAccessKey: 'none' } }),
  )
  return plain
}

function inside(client: S3Client): ClientInside {
  return client as unknown as ClientInside
}

/** Counts the changes of a stack from now on. Undefined where that cannot be done. */
function watchStack(stack: ClientInside['middlewareStack']): StackChanges | undefined {
  const known = changesOf.get(stack)
  if (known !== undefined) return known
  const changes: StackChanges = { count: 0, hasOverride: false }
  try {
    for (const name of changing) {
      const method = stack[name] as (...args: unknown[]) => unknown
      const counted = function (this: unknown, ...args: unknown[]): unknown {
        changes.count++
        if ((args[1] as { override?: boolean } | undefined)?.override === true) changes.hasOverride = true
        return method.apply(this, args)
      }
      Object.defineProperty(stack, name, {
        value: counted,
        writable: true,
        configurable: true,
        enumerable: true,
      })
    }
  } catch {
    return undefined
  }
  changesOf.set(stack, changes)
  return changes
}

export class ClientConditions {
  /** Whether the client corrects its clock by that of the service; known when the settings are. */
  correctsClock = false
  readonly #client: S3Client
  readonly #checked: unknown[] = []
  #stack: unknown
  #changes: StackChanges | undefined
  #checkedCount = -1
  #reason: string | undefined = 'the client has not been looked at yet'
  /** What only a promise tells. */
  #settings: string | undefined = 'the settings of the client are not known yet'
  #isAsking = false

  constructor(client: S3Client) {
    this.#client = client
  }

  /** Why requests have to go through the client's `send`; undefined when they need not. Cheap as long as nothing changes. */
  reasonAgainst(): string | undefined {
    const { config, middlewareStack } = inside(this.#client)
    if (this.#client.send !== sendAtImport) return 'the client has a send of its own'
    let isSame = middlewareStack === this.#stack && this.#changes?.count === this.#checkedCount
    for (let index = 0; isSame && index < exchangeable.length; index++)
      isSame = config[exchangeable[index]] === this.#checked[index]
    if (!isSame) this.#look()
    return this.#reason ?? this.#settings
  }

  #look(): void {
    const { config, middlewareStack } = inside(this.#client)
    this.#stack = middlewareStack
    this.#changes = watchStack(middlewareStack)
    this.#checkedCount = this.#changes?.count ?? -1
    for (const [index, name] of exchangeable.entries()) this.#checked[index] = config[name]
    this.#reason =
      this.#changes === undefined ? 'its middleware cannot be watched' : this.#difference(this.#changes)
    if (this.#reason === undefined) void this.#ask()
  }

  #difference(changes: StackChanges): string | undefined {
    const client = inside(this.#client)
    const { config } = client
    const fresh = plainClient()
    if (Object.getPrototypeOf(this.#client) !== S3Client.prototype)
      return 'the client is of a subclass, or of another copy of the SDK'
    const { extensions } = config
    if (Array.isArray(extensions) && extensions.length > 0) return 'the client has extensions'
    const isUsual = (name: string) => String(config[name]) === String(fresh.config[name])
    if (!isUsual('signer') || !isUsual('signerConstructor')) return 'the client has a signer of its own'
    if (classOf(config['logger']) !== classOf(fresh.config['logger']))
      return 'the client has a logger of its own'
    const own = client.middlewareStack.identify()
    const usual = fresh.middlewareStack.identify()
    if (
      changes.hasOverride ||
      own.length !== usual.length ||
      own.some((entry, index) => entry !== usual[index])
    )
      return 'the client has middleware of its own'
    return undefined
  }

  async #ask(): Promise<void> {
    if (this.#isAsking) return
    this.#isAsking = true
    try {
      const { config } = inside(this.#client)
      const disabled = config['disableClockSkewCorrection'] as (() => Promise<boolean>) | undefined
      this.correctsClock = (await disabled?.()) !== true
      const strategy = config['retryStrategy'] as (() => Promise<unknown>) | undefined
      const usual = plainClient().config['retryStrategy'] as (() => Promise<unknown>) | undefined
      const isOwnStrategy = classOf(await strategy?.()) !== classOf(await usual?.())
      const given = config['retryMode'] as string | (() => Promise<string>) | undefined
      const mode = typeof given === 'function' ? await given() : given
      this.#settings =
        mode === 'adaptive'
          ? 'the client limits its own rate (retryMode: adaptive)'
          : isOwnStrategy
            ? 'the client has a retry strategy of its own'
            : undefined
    } catch {
      this.#settings = 'the retry mode of the client is not known'
    } finally {
      this.#isAsking = false
    }
  }
}

function classOf(value: unknown): unknown {
  return (value as object | undefined)?.constructor
}
