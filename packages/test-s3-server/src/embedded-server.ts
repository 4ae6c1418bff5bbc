import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type {
  AcceptedCredentials,
  AnswerMessage,
  Command,
  Fault,
  FaultRule,
  Operation,
  Quirks,
  ReadyMessage,
  RequestRecord,
  ServerCounters,
  ServerOptions,
} from './server/protocol.ts'

export interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

/** Which requests, beside the operation. Counted from when the fault is set. */
export type FaultScope = Pick<FaultRule, 'from' | 'times' | 'chance' | 'keyIncludes' | 'accessKeyId'>

export interface ServerFaults {
  /** One matching request goes wrong: the first, or the `from`-th. Resolves to the rule's number. */
  once(
    operation: Operation | readonly Operation[] | 'any',
    fault: Fault,
    scope?: Omit<FaultScope, 'times' | 'chance'>,
  ): Promise<number>
  /** All matching requests go wrong from the `from`-th on, or `times` of them, or each with probability `chance`. */
  always(
    operation: Operation | readonly Operation[] | 'any',
    fault: Fault,
    scope?: FaultScope,
  ): Promise<number>
  remove(ruleId: number): Promise<void>
  clear(): Promise<void>
  /** How often each rule came true, by its number. */
  fired(): Promise<Readonly<Record<number, number>>>
}

export interface EmbeddedServer extends AsyncDisposable {
  /** `http://127.0.0.1:<port>` */
  readonly endpoint: string
  readonly region: string
  /** The first of the buckets that were asked for. */
  readonly bucket: string
  /** The first of the accepted ones. */
  readonly credentials: Credentials
  /** Process id of the server. */
  readonly pid: number
  readonly faults: ServerFaults
  /** The requests so far, oldest first, of one operation or of all; those after request number `after`. */
  log(operation?: Operation, after?: number): Promise<readonly RequestRecord[]>
  /** Forgets the log and sets the counters to 0. */
  clearLog(): Promise<void>
  counters(): Promise<ServerCounters>
  /** From now on these are accepted, and no others. */
  setCredentials(credentials: readonly AcceptedCredentials[]): Promise<void>
  setQuirks(quirks: Quirks): Promise<void>
  /** Sets the server's clock, in milliseconds ahead of this machine's. */
  setClock(offsetMs: number): Promise<void>
  setQuota(quotaBytes: number): Promise<void>
  /** Ends all connections and refuses new ones; `false` takes them again, on the same port and with all objects. */
  outage(out: boolean): Promise<void>
  /** Ends the server; all that it stored is gone. A second call does nothing. */
  close(): Promise<void>
}

// The server lies beside this file, built or as source.
const serverExtension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
const serverPath = fileURLToPath(new URL(`./server/server.${serverExtension}`, import.meta.url))
const defaultCredentials: Credentials = {
  accessKeyId: 'test-access-key',
  secretAccessKey: 'test-secret-key',
}

/** Commands to the server process and their answers. An idle channel does not keep this process alive, where channels can be told so (not in Bun). */
class Channel {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve(result: unknown): void; reject(error: Error): void }>()
  #lastId = 0
  #ended = false

  constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', (message: AnswerMessage) => {
      const waiting = this.#waiting.get(message.id)
      this.#waiting.delete(message.id)
      if (this.#waiting.size === 0) child.channel?.unref?.()
      if (message.failure === undefined) waiting?.resolve(message.result)
      else waiting?.reject(new Error(message.failure))
    })
    child.once('exit', () => {
      this.#ended = true
      for (const { reject } of this.#waiting.values()) reject(new Error('the S3 test server has ended'))
      this.#waiting.clear()
    })
    child.unref()
    child.channel?.unref?.()
  }

  send<T>(command: Command): Promise<T> {
    if (this.#ended) return Promise.reject(new Error('the S3 test server has ended'))
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId
      this.#waiting.set(id, { resolve: resolve as (result: unknown) => void, reject })
      this.#child.channel?.ref?.()
      this.#child.send({ ...command, id }, (error) => {
        if (error === null || !this.#waiting.delete(id)) return
        reject(new Error('the S3 test server has ended', { cause: error }))
      })
    })
  }
}

function ready(child: ChildProcess, options: ServerOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`the S3 test server ended at once, with status ${code}`)))
    child.once('message', (message: ReadyMessage) => {
      child.removeAllListeners('exit')
      resolve(message.ready.port)
    })
    child.send(options)
  })
}

interface ServerProcess {
  readonly child: ChildProcess
  readonly channel: Channel
  readonly port: number
}

async function startProcess(options: ServerOptions): Promise<ServerProcess> {
  const child = fork(serverPath, [], {
    execArgv: [],
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: { PATH: process.env['PATH'] ?? '' },
  })
  const port = await ready(child, options)
  return { child, channel: new Channel(child), port }
}

/** Processes whose server was closed: a start costs more than most tests. */
const idleProcesses: ServerProcess[] = []

async function renewProcess(options: ServerOptions): Promise<ServerProcess | undefined> {
  const idle = idleProcesses.pop()
  return idle && { ...idle, port: await idle.channel.send<number>({ command: 'renew', options }) }
}

function faultsOf(channel: Channel): ServerFaults {
  const add = (
    operation: Operation | readonly Operation[] | 'any',
    fault: Fault,
    scope: FaultScope,
  ): Promise<number> => {
    const rule: FaultRule =
      operation === 'any' ? { ...scope, fault } : { ...scope, operation: operation as Operation, fault }
    return channel.send({ command: 'addFault', rule })
  }
  return {
    once: (operation, fault, scope = {}) => add(operation, fault, { ...scope, times: 1 }),
    always: (operation, fault, scope = {}) => add(operation, fault, scope),
    remove: (ruleId) => channel.send({ command: 'removeFault', ruleId }),
    clear: () => channel.send({ command: 'clearFaults' }),
    fired: () => channel.send({ command: 'fired' }),
  }
}

/**
 * Starts the S3 test server in a process of its own, which ends with this one at the latest.
 * @param options see `ServerOptions`; nothing has to be given
 * @param reuseProcess takes a process whose server was closed, if there is one, and leaves it for the next
 */
export async function startServer(
  options: ServerOptions = {},
  reuseProcess = false,
): Promise<EmbeddedServer> {
  const serverProcess = (reuseProcess && (await renewProcess(options))) || (await startProcess(options))
  const { child, channel, port } = serverProcess
  let closing: Promise<void> | undefined
  const leave = async () => {
    await channel.send({ command: 'outage', out: true })
    idleProcesses.push(serverProcess)
  }
  const end = () =>
    new Promise<void>((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve()
      child.ref()
      child.once('exit', () => resolve())
      // It has nothing to tidy up.
      child.kill('SIGKILL')
    })
  const close = () => {
    closing ??= reuseProcess ? leave() : end()
    return closing
  }
  const { accessKeyId, secretAccessKey, sessionToken } = options.credentials?.[0] ?? defaultCredentials
  return {
    endpoint: `http://127.0.0.1:${port}`,
    region: options.region ?? 'us-east-1',
    bucket: options.buckets?.[0] ?? 'test',
    credentials: { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) },
    pid: child.pid!,
    faults: faultsOf(channel),
    log: (operation, after = 0) => channel.send({ command: 'log', operation, after }),
    clearLog: () => channel.send({ command: 'clearLog' }),
    counters: () => channel.send({ command: 'counters' }),
    setCredentials: (credentials) => channel.send({ command: 'setCredentials', credentials }),
    setQuirks: (quirks) => channel.send({ command: 'setQuirks', quirks }),
    setClock: (offsetMs) => channel.send({ command: 'setClock', offsetMs }),
    setQuota: (quotaBytes) => channel.send({ command: 'setQuota', quotaBytes }),
    outage: (out) => channel.send({ command: 'outage', out }),
    close,
    [Symbol.asyncDispose]: close,
  }
}
