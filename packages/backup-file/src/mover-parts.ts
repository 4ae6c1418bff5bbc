import type { ChecksumTable } from './checksum-table.ts'
import type { DataDescriptor } from './direct-io.ts'
import type { Engine } from './engine.ts'
import type { StagingPool } from './staging.ts'

/** What pages are moved with, and what has to be known of them. */
export interface MoverParts {
  readonly name: string
  readonly pageSizeBytes: number
  readonly dataOffsetBytes: number
  readonly engine: Engine
  readonly largeStaging: StagingPool
  readonly smallStaging: StagingPool
  readonly checksums: ChecksumTable | undefined
  readonly slotOf: (handle: number) => number
  readonly isLive: (handle: number, count: number) => boolean
  /** What the engine moves pages through. */
  readonly data: Pick<DataDescriptor, 'direct' | 'fallBack'>
  /** Told of each page that does not match twice. */
  readonly onCorrupt: (handle: number) => void
}
