import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { SegmentTable } from '../segments/segment-table.ts'
import type { S3Service } from '../service/service.ts'
import type { Deletions } from './deletions.ts'
import type { Lease } from './lease.ts'
import { encodeManifest } from './manifest.ts'

/** So many new segments are worth a manifest; also a quarter of what there is, so that large tables are written rarely. */
const segmentsPerManifest = 64

/** Writes manifests under names that count up, and removes each when the next one is there. */
export class ManifestKeeper {
  lastError: Error | undefined
  readonly #settings: Settings
  readonly #service: S3Service
  readonly #keys: KeySpace
  readonly #table: SegmentTable
  readonly #lease: Lease
  readonly #deletions: Deletions
  #sequence = 0
  #segmentsSince = 0
  #previous: string | undefined
  #writing: Promise<void> | undefined

  constructor(parts: {
    settings: Settings
    service: S3Service
    keys: KeySpace
    table: SegmentTable
    lease: Lease
    deletions: Deletions
  }) {
    this.#settings = parts.settings
    this.#service = parts.service
    this.#keys = parts.keys
    this.#table = parts.table
    this.#lease = parts.lease
    this.#deletions = parts.deletions
  }

  segmentWritten(): void {
    this.#segmentsSince++
    const due = Math.max(segmentsPerManifest, this.#table.objects.size / 4)
    if (this.#segmentsSince < due || this.#writing !== undefined) return
    // A failure costs nothing: what is not in a manifest is found by listing.
    this.#writing = this.write()
      .catch((error: Error) => {
        this.lastError = error
      })
      .finally(() => {
        this.#writing = undefined
      })
  }

  /** Writes the table as it is now. */
  async write(signal?: AbortSignal): Promise<void> {
    this.#segmentsSince = 0
    await this.#lease.assertOwned(signal)
    const { epoch, underway, nextSegmentNumber: nextNumber } = this.#lease
    const { pageSizeBytes } = this.#settings
    const about = { epoch, pageSizeBytes, nextNumber, underway: [...underway] }
    const { body, ...sums } = await encodeManifest(this.#table, about)
    const sequence = ++this.#sequence
    const key = this.#keys.manifest(epoch, sequence)
    await this.#service.upload(key, body, {
      ...sums,
      identity: `manifest-${sequence}-${body.length}`,
      free: true,
      signal,
    })
    await this.#lease.assertOwned(signal)
    if (this.#previous !== undefined) this.#deletions.add(this.#previous)
    this.#previous = key
  }

  async close(): Promise<void> {
    await this.#writing
    await this.write()
  }
}
