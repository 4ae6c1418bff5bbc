import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { S3Service, StoredObject } from '../service/service.ts'

/** What sweeping works with. */
export interface SweepParts {
  readonly settings: Settings
  readonly service: S3Service
  readonly keys: KeySpace
  readonly signal?: AbortSignal | undefined
  /** Deletes objects and counts them. */
  readonly remove: (objects: readonly StoredObject[], guard?: () => Promise<void>) => Promise<void>
}
