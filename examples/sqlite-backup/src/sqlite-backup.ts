import * as core from '@spillway/core'
import { PageTable } from './page-table.ts'

type Runs = readonly core.HandleRun[]
type Spans = readonly Uint8Array[]

const pageSizeBytes = 4096
// node:sqlite is synchronous: after so many pages the event loop gets its turn.
const slicePages = 64

/** The contract over a `PageTable`. `path` '' is a temporary file that SQLite removes by itself. */
export class SqliteBackup implements core.Backup {
  readonly name = 'sqlite'
  readonly capabilities: core.BackupCapabilities = Object.freeze({
    pageSizeBytes,
    medium: 'sqlite',
    preferredBatchPages: 512,
    preferredCallsInFlight: 1,
    persistent: false,
    shareable: false,
    reserves: false,
    detectsCorruption: true,
    stores: true,
  })
  readonly #table: PageTable
  readonly #capacityPages: number
  readonly #gate = new core.CallGate(this.name)
  #stats = { backedUpPages: 0, copiedPages: 0, droppedPages: 0, writebackErrors: 0, leakedPages: 0 }

  constructor({ path = '', capacityBytes = 2 ** 30 } = {}) {
    core.assertByteCount(capacityBytes, 'capacityBytes')
    this.#capacityPages = Math.floor(capacityBytes / pageSizeBytes)
    this.#table = new PageTable(path)
  }

  async backupPages(spans: Spans, options: core.BackupPagesOptions = {}) {
    core.assertBackupPagesOptions(options)
    core.countPages(spans, pageSizeBytes)
    if (options.reservation !== undefined) throw new TypeError('backup sqlite makes no reservations')
    return this.#gate.run(async (): Promise<core.BackupResult> => {
      const pages = core.splitIntoPages(spans, pageSizeBytes)
      const handles: core.HandleRun[] = []
      for (let done = 0; done < pages.length; ) {
        if (options.signal?.aborted) return { handles, error: core.abortError(options.signal) }
        const room = this.#capacityPages - this.stats().livePages
        if (room === 0) return { handles, error: this.#error('ENOSPC') }
        const slice = pages.slice(done, done + Math.min(slicePages, room))
        try {
          handles.push(this.#table.insert(slice))
        } catch (failure) {
          return { handles, error: core.systemError(failure, 'cannot insert pages', { backup: this.name }) }
        }
        this.#stats.backedUpPages += slice.length
        done += slice.length
        await core.yieldToEventLoop()
      }
      return { handles }
    })
  }

  async copyPages(runs: Runs, spans: Spans, options: core.TransferOptions = {}) {
    core.assertTransferOptions(options)
    core.countCopy(runs, spans, pageSizeBytes)
    return this.#gate.run(async (): Promise<core.CopyResult> => {
      const stale = this.#table.firstMissing(runs)
      if (stale !== undefined) throw this.#error('ESTALE', stale)
      const handles = runs.flatMap(({ first, count }) =>
        Array.from({ length: count }, (_, page) => first + page),
      )
      for (const [copied, page] of core.splitIntoPages(spans, pageSizeBytes).entries()) {
        if (copied > 0 && copied % slicePages === 0) await core.yieldToEventLoop()
        if (options.signal?.aborted) return { copied, error: core.abortError(options.signal) }
        const outcome = this.#table.read(handles[copied], page)
        if (outcome === 'missing') return { copied, error: this.#error('ESTALE', handles[copied]) }
        if (outcome === 'damaged') return { copied, error: this.#error('EBADMSG', handles[copied]) }
        this.#stats.copiedPages++
      }
      return { copied: handles.length }
    })
  }

  async drop(runs: Runs): Promise<void> {
    const count = core.countHandles(runs)
    this.#gate.assertOpen()
    const stale = this.#table.remove(runs)
    if (stale !== undefined) throw this.#error('ESTALE', stale)
    this.#stats.droppedPages += count
  }

  async bytesAvailable(): Promise<number> {
    this.#gate.assertOpen()
    return (this.#capacityPages - this.stats().livePages) * pageSizeBytes
  }

  async reserve(bytes: number): Promise<core.Reservation> {
    core.assertByteCount(bytes, 'bytes')
    this.#gate.assertOpen()
    throw this.#error('ENOSYS')
  }

  stats(): core.BackupStats {
    const livePages = this.#stats.backedUpPages - this.#stats.droppedPages
    return { ...this.#stats, livePages, mediumBytes: livePages * pageSizeBytes }
  }

  close(): Promise<void> {
    return this.#gate.close(() => {
      this.#stats.leakedPages = this.stats().livePages
      this.#table.close()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #error(code: core.ErrorCode, handle?: number): core.SpillwayError {
    const about = handle === undefined ? code : `handle ${handle}`
    return new core.SpillwayError(code, `${about} in backup ${this.name}`, { backup: this.name, handle })
  }
}
