import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import {
  type Fault,
  keptHeaders,
  type Operation,
  type OperationCounters,
  type RequestRecord,
  type ServerCounters,
} from './protocol.ts'

type Writable<T> = { -readonly [Key in keyof T]: T[Key] }
export type OpenRecord = Writable<RequestRecord> & { faults: Fault['kind'][] }

interface OpenCounters {
  requests: number
  bytesIn: number
  bytesOut: number
  statuses: Record<string, number>
}

/** The last requests, and counters of all. */
export class RequestLog {
  readonly #limit: number
  #records: OpenRecord[] = []
  #operations: Partial<Record<Operation | 'unknown', OpenCounters>> = {}
  readonly #connections = new WeakMap<Socket, number>()
  #connectionCount = 0
  #openConnections = 0
  #requests = 0
  #bytesIn = 0
  #bytesOut = 0
  #underWay = 0
  #mostUnderWay = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  connected(socket: Socket): void {
    this.#connections.set(socket, ++this.#connectionCount)
    this.#openConnections++
    socket.once('close', () => this.#openConnections--)
  }

  begin(
    request: IncomingMessage,
    operation: Operation | 'unknown',
    bucket: string,
    key: string,
    query: string,
  ): OpenRecord {
    const headers: Record<string, string> = {}
    for (const name of keptHeaders) {
      const value = request.headers[name]
      if (value !== undefined) headers[name] = String(value)
    }
    this.#underWay++
    this.#mostUnderWay = Math.max(this.#mostUnderWay, this.#underWay)
    const record: OpenRecord = {
      serial: ++this.#requests,
      operation,
      method: request.method ?? '',
      bucket,
      key,
      accessKeyId: '',
      query,
      range: request.headers.range,
      status: 0,
      code: undefined,
      bytesIn: 0,
      bytesOut: 0,
      faults: [],
      headers,
      connection: this.#connections.get(request.socket) ?? 0,
      startedMs: performance.now(),
      endedMs: undefined,
      underWay: this.#underWay,
    }
    this.#records.push(record)
    if (this.#records.length > 2 * this.#limit) this.#records = this.#records.slice(-this.#limit)
    return record
  }

  /** To be called once for each record. */
  end(record: OpenRecord): void {
    record.endedMs = performance.now()
    this.#underWay--
    this.#operations[record.operation] ??= { requests: 0, bytesIn: 0, bytesOut: 0, statuses: {} }
    const counters = this.#operations[record.operation]!
    counters.requests++
    counters.bytesIn += record.bytesIn
    counters.bytesOut += record.bytesOut
    counters.statuses[record.status] = (counters.statuses[record.status] ?? 0) + 1
    this.#bytesIn += record.bytesIn
    this.#bytesOut += record.bytesOut
  }

  records(operation: Operation | undefined, after: number): readonly RequestRecord[] {
    return this.#records
      .slice(-this.#limit)
      .filter(
        (record) => record.serial > after && (operation === undefined || record.operation === operation),
      )
  }

  /** Forgets the requests and the counters; what is under way stays counted as such. */
  clear(): void {
    this.#records = []
    this.#operations = {}
    this.#requests = 0
    this.#bytesIn = 0
    this.#bytesOut = 0
    this.#mostUnderWay = this.#underWay
  }

  counters(storedObjects: number, storedBytes: number): ServerCounters {
    const { user, system } = process.cpuUsage()
    return {
      operations: this.#operations as Partial<Record<Operation | 'unknown', OperationCounters>>,
      requests: this.#requests,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      connections: this.#connectionCount,
      openConnections: this.#openConnections,
      underWay: this.#underWay,
      mostUnderWay: this.#mostUnderWay,
      cpuMs: (user + system) / 1000,
      storedObjects,
      storedBytes,
    }
  }
}
