/**
 * An S3 server for tests and benchmarks: path-style, on 127.0.0.1, objects in memory, nothing kept. A process of its own:
 *
 *   forked by the harness       takes its options and commands over the IPC channel, ends when the channel closes
 *   node server.ts [port]       by hand: prints its endpoint, ends when its input ends
 */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { BodyMemory } from './body-memory.ts'
import { FaultPlan } from './fault-plan.ts'
import { handle, type ServerState } from './handler.ts'
import type { AnswerMessage, Command, CommandMessage, ReadyMessage, ServerOptions } from './protocol.ts'
import { RequestLog } from './request-log.ts'
import { Store } from './store.ts'

const defaultCredentials = [{ accessKeyId: 'test-access-key', secretAccessKey: 'test-secret-key' }]

function makeState(options: ServerOptions): ServerState {
  return {
    store: new Store(options.buckets ?? ['test'], options.quotaBytes ?? Number.POSITIVE_INFINITY),
    memory: new BodyMemory(options.warmBytes ?? 0),
    faults: new FaultPlan(options.seed ?? 1),
    log: new RequestLog(options.logRequests ?? 20_000),
    credentials: options.credentials ?? defaultCredentials,
    sessions: [],
    quirks: options.quirks ?? {},
    region: options.region ?? 'us-east-1',
    clockOffsetMs: options.clockOffsetMs ?? 0,
    md5ETags: options.md5ETags ?? false,
    maxListKeys: options.maxListKeys ?? 1000,
    maxObjectBytes: options.maxObjectBytes ?? 5 * 1024 ** 3,
  }
}

function makeServer(state: ServerState): http.Server {
  const server = http.createServer((request, response) => void handle(state, request, response, false))
  server.on('checkContinue', (request, response) => void handle(state, request, response, true))
  server.on('connection', (socket) => state.log.connected(socket))
  server.on('clientError', (_, socket) => socket.destroy())
  // An idle connection that ends just as a request is sent looks like a fault; only the fault plan makes those.
  server.keepAliveTimeout = 600_000
  server.requestTimeout = 0
  server.headersTimeout = 0
  return server
}

function listen(server: http.Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port, host: '127.0.0.1', backlog: 1024 }, () => {
      server.off('error', reject)
      resolve((server.address() as AddressInfo).port)
    })
  })
}

function stopListening(server: http.Server): Promise<void> {
  return new Promise((resolve) => {
    if (!server.listening) return resolve()
    server.close(() => resolve())
    server.closeAllConnections()
  })
}

interface Service {
  readonly state: ServerState
  readonly server: http.Server
  readonly port: number
}

async function serve(options: ServerOptions): Promise<Service> {
  const state = makeState(options)
  const server = makeServer(state)
  return { state, server, port: await listen(server, options.port ?? 0) }
}

async function obey(
  { state, server, port }: Service,
  command: Exclude<Command, { command: 'renew' }>,
): Promise<unknown> {
  switch (command.command) {
    case 'addFault':
      return state.faults.add(command.rule)
    case 'removeFault':
      return state.faults.remove(command.ruleId)
    case 'clearFaults':
      return state.faults.clear()
    case 'fired':
      return state.faults.fired()
    case 'log':
      return state.log.records(command.operation, command.after)
    case 'clearLog':
      return state.log.clear()
    case 'counters':
      return state.log.counters(state.store.storedObjects, state.store.storedBytes)
    case 'setCredentials':
      state.credentials = command.credentials
      return
    case 'setQuirks':
      state.quirks = command.quirks
      return
    case 'setClock':
      state.clockOffsetMs = command.offsetMs
      return
    case 'setQuota':
      state.store.quotaBytes = command.quotaBytes
      return
    case 'outage':
      if (command.out) await stopListening(server)
      else if (!server.listening) await listen(server, port)
      return
  }
}

function serveParent(): void {
  const send = (message: AnswerMessage | ReadyMessage) => process.send!(message)
  process.once('message', async (options: ServerOptions) => {
    let service = await serve(options)
    const renew = async (fresh: ServerOptions) => {
      await stopListening(service.server)
      service = await serve(fresh)
      return service.port
    }
    process.on('message', async ({ id, ...message }: CommandMessage) => {
      const command = message as Command
      try {
        const result =
          command.command === 'renew' ? await renew(command.options) : await obey(service, command)
        send({ id, result })
      } catch (error) {
        send({ id, failure: String(error) })
      }
    })
    send({ ready: { port: service.port } })
  })
  process.once('disconnect', () => process.exit(0))
}

async function serveTerminal(): Promise<void> {
  const port = await listen(makeServer(makeState({})), Number(process.argv[2] ?? 0))
  const { accessKeyId, secretAccessKey } = defaultCredentials[0]!
  process.stdout.write(`S3_ENDPOINT=http://127.0.0.1:${port}\nS3_BUCKET=test\n`)
  process.stdout.write(`AWS_ACCESS_KEY_ID=${accessKeyId}\nAWS_SECRET_ACCESS_KEY=${secretAccessKey}\n`)
  process.stdin.resume().once('end', () => process.exit(0))
}

if (process.send === undefined) await serveTerminal()
else serveParent()
