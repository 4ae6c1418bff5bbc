import type { HandleRun } from '@spillway/core'
import type { DiskSpace } from './disk-space.ts'
import type { FileStorage } from './file-storage.ts'

export interface SlotSpaceParts {
  readonly name: string
  readonly pageSizeBytes: number
  readonly capacitySlots: number
  /** Slots that pages leave to metadata of images. Default 0. */
  readonly metadataSlots?: number | undefined
  /** The last generation that slots of this file were given. Default: none was, and the first is random. */
  readonly generation?: number | undefined
  readonly warmBytes: number
  readonly disk: DiskSpace
  readonly storage: FileStorage
  /** Names the file system, for what has to be done one after the other on it. */
  readonly deviceId: string
}

/** Slots taken for pages that are on their way; nobody knows their handles yet. */
export interface TakenSlots {
  readonly runs: HandleRun[]
  readonly pages: number
  /** Space granted for slots that had none. */
  readonly grantedBytes: number
  /** Why there are fewer than were wanted. */
  readonly error?: Error | undefined
}

/** The same while it grows. */
export interface Taking {
  runs: HandleRun[]
  pages: number
  grantedBytes: number
  readonly forMetadata: boolean
}

export interface TakeOptions {
  /** Slots that were taken for the caller before. */
  readonly reserved?: HandleRun[] | undefined
  /** Whether slots may be taken that pages leave to metadata. */
  readonly forMetadata?: boolean | undefined
}
