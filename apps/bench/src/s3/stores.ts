import { randomBytes } from 'node:crypto'
import { DeleteObjectsCommand, GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import type { S3Backup } from '@spillway/backup-s3'
import type { HandleRun } from '@spillway/core'
import { pageBytes, segmentBytes } from './meter.ts'
import type { S3Access } from './server.ts'

/** What is sent, and where it comes back to: a segment for each worker, compared whole after every GET. */
export class Segments {
  readonly #source: readonly Buffer[]
  readonly #target: readonly Buffer[]
  /** What came back wrong, segments and pages. */
  wrongAnswers = 0

  constructor(concurrency: number) {
    this.#source = Array.from({ length: concurrency }, () => randomBytes(segmentBytes))
    this.#target = Array.from({ length: concurrency }, () => Buffer.alloc(segmentBytes))
  }

  source(index: number): Buffer {
    return this.#source[index % this.#source.length]
  }

  /** Page `at` of segment `index`. */
  sourcePage(index: number, at: number): Buffer {
    return this.source(index).subarray(at * pageBytes, (at + 1) * pageBytes)
  }

  target(worker: number): Buffer {
    return this.#target[worker]
  }

  check(worker: number, index: number): void {
    const target = this.#target[worker]
    if (!target.equals(this.source(index))) this.wrongAnswers++
    // The next answer has to be written, not found.
    target.fill(0, 0, pageBytes)
  }

  checkPage(found: Uint8Array, index: number, at: number): void {
    if (!this.sourcePage(index, at).equals(found)) this.wrongAnswers++
  }
}

/** Bare calls of the SDK as it comes. */
export class BareCalls implements Disposable {
  readonly #client: S3Client
  readonly #access: S3Access

  constructor(access: S3Access) {
    this.#client = new S3Client(access.clientConfig)
    this.#access = access
  }

  async put(name: string, body: Buffer): Promise<void> {
    const { bucket, prefix } = this.#access
    await this.#client.send(
      new PutObjectCommand({ Bucket: bucket, Key: `${prefix}bare/${name}`, Body: body }),
    )
  }

  async get(name: string): Promise<Uint8Array> {
    const { bucket, prefix } = this.#access
    const { Body } = await this.#client.send(
      new GetObjectCommand({ Bucket: bucket, Key: `${prefix}bare/${name}` }),
    )
    return Body!.transformToByteArray()
  }

  async delete(names: readonly string[]): Promise<void> {
    const { bucket, prefix } = this.#access
    const Objects = names.map((name) => ({ Key: `${prefix}bare/${name}` }))
    const answer = await this.#client.send(
      new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects, Quiet: true } }),
    )
    if (answer.Errors?.length) throw new Error(`not deleted: ${answer.Errors[0].Code}`)
  }

  [Symbol.dispose](): void {
    this.#client.destroy()
  }
}

/** A backup and the handles of the segments that are in it. */
export class SegmentBackup {
  readonly backup: S3Backup
  readonly #segments: Segments
  #handles: (readonly HandleRun[])[] = []

  constructor(backup: S3Backup, segments: Segments) {
    this.backup = backup
    this.#segments = segments
  }

  async put(index: number): Promise<void> {
    const result = await this.backup.backupPages([this.#segments.source(index)])
    if (result.error !== undefined) throw result.error
    this.#handles[index] = result.handles
  }

  async get(worker: number, index: number): Promise<void> {
    const { error } = await this.backup.copyPages(this.#handles[index], [this.#segments.target(worker)])
    if (error !== undefined) throw error
    this.#segments.check(worker, index)
  }

  async getPage(worker: number, index: number, at: number): Promise<void> {
    const page = this.#segments.target(worker).subarray(0, pageBytes)
    const [{ first }] = this.#handles[index]
    const { error } = await this.backup.copyPages([{ first: first + at, count: 1 }], [page])
    if (error !== undefined) throw error
    this.#segments.checkPage(page, index, at)
  }

  async dropAll(): Promise<void> {
    for (const runs of this.#handles) await this.backup.drop(runs)
    this.#handles = []
  }

  /** GET requests so far that moved pages, retries and hedges included. */
  get pageGets(): number {
    const { requests, housekeeping } = this.backup.stats().costs.verbs.get
    return requests - housekeeping
  }
}
