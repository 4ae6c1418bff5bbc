import type { Backup } from '@spillway/core'
import type { BackendModule } from './backend-module-types.ts'
import type { S3Access } from './s3/server.ts'

/** What a backend is opened with. */
export interface BackendSettings {
  readonly capacityBytes: number
  readonly pageSizeBytes: number
  /** Where the file backend keeps its file. */
  readonly directory: string
  readonly io: 'auto' | 'uring' | 'threads'
  readonly checksums: boolean
  /** Memory that a shared-memory backend keeps of dropped pages: as much as the set of whole buffers that is measured. */
  readonly warmBytes: number
  /** The service that the S3 backend talks to. */
  readonly s3?: S3Access | undefined
}

/** One place where pages can go, as the bench knows it. */
export interface BackendDescription {
  readonly name: string
  readonly title: string
  /** Whether the stored bytes are memory of this machine: then there must be enough of it. */
  readonly usesMemory: boolean
  /** Whether they are ordinary memory of the process, which its resident size then cannot tell from the pool's. */
  readonly storesInProcess: boolean
  /** The ceilings that its whole-buffer figures are held against, the first that was measured. */
  readonly backupCeilings: readonly string[]
  readonly restoreCeilings: readonly string[]
  /** `name:variant` changes settings. */
  readonly variants: Readonly<Record<string, Partial<BackendSettings>>>
  /** Loads the modules that it takes: they are part of a program that does nothing yet. */
  load(): Promise<unknown>
  open(settings: BackendSettings): Promise<Backup>
  /** Of a module: what it exports. Throws `UsageError` where that is not what the bench takes. */
  check?(): Promise<BackendModule>
}
