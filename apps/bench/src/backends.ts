import type { Backup } from '@spillway/core'
import { composerNames, describeExpression, isExpression } from './backend-expressions.ts'
import type { S3Access } from './s3/server.ts'
import { UsageError } from './usage-error.ts'

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
}

const fileWriteCeilings = ['fioBestWrite', 'nodeDirectWrite', 'nodeBufferedWrite']
const fileReadCeilings = ['fioBestRead', 'nodeDirectRead', 'nodeBufferedRead']
const memoryCeilings = ['memcpy', 'typedArraySet']

/** Every backend of the bench. A new one is added here and nowhere else. */
export const backends: readonly BackendDescription[] = [
  {
    name: 'memory',
    title: 'memory (reference)',
    usesMemory: true,
    storesInProcess: true,
    backupCeilings: memoryCeilings,
    restoreCeilings: memoryCeilings,
    variants: {},
    load: () => import('@spillway/core'),
    async open({ capacityBytes, pageSizeBytes }) {
      const { memoryBackup } = await import('@spillway/core')
      return memoryBackup({ capacityBytes, pageSizeBytes })
    },
  },
  {
    name: 'shmem',
    title: 'shared memory',
    usesMemory: true,
    storesInProcess: false,
    backupCeilings: memoryCeilings,
    restoreCeilings: memoryCeilings,
    variants: {},
    load: () => import('@spillway/backup-shmem'),
    async open({ capacityBytes, pageSizeBytes, warmBytes }) {
      const { openShmemBackup } = await import('@spillway/backup-shmem')
      return openShmemBackup({ capacityBytes, pageSizeBytes, warmBytes })
    },
  },
  {
    name: 'file',
    title: 'file',
    usesMemory: false,
    storesInProcess: false,
    backupCeilings: fileWriteCeilings,
    restoreCeilings: fileReadCeilings,
    variants: {
      uring: { io: 'uring' },
      threads: { io: 'threads' },
      unchecked: { checksums: false },
    },
    load: () => import('@spillway/backup-file'),
    async open({ capacityBytes, pageSizeBytes, directory, io, checksums }) {
      const { openFileBackup } = await import('@spillway/backup-file')
      return openFileBackup({ directory, capacityBytes, pageSizeBytes, io, checksums })
    },
  },
  {
    name: 's3',
    title: 'S3',
    // The embedded server keeps its objects in memory.
    usesMemory: true,
    storesInProcess: false,
    // Held against loops of bare calls instead, which `run` measures beside it.
    backupCeilings: [],
    restoreCeilings: [],
    variants: {},
    load: () => Promise.all([import('@aws-sdk/client-s3'), import('@spillway/backup-s3')]),
    async open({ capacityBytes, pageSizeBytes, s3 }) {
      if (s3 === undefined)
        throw new UsageError("backend 's3' needs a server; only 'run' and 'soak' start one")
      const { S3Client } = await import('@aws-sdk/client-s3')
      const { pageHttpHandler, S3Backup } = await import('@spillway/backup-s3')
      const client = new S3Client({ ...s3.clientConfig, requestHandler: pageHttpHandler() })
      const { bucket, prefix } = s3
      return S3Backup.open({ client, bucket, prefix, capacityBytes, pageSizeBytes })
    },
  },
]

/** Ways to spoil a backend on purpose, to prove that the bench notices: `name+flip`, `name+lose`. */
export const spoilers = ['flip', 'lose'] as const
export type Spoiler = (typeof spoilers)[number]

/** A backend as named on the command line: `file:uring:unchecked`, `memory+flip`, `compressed(file)`. */
export interface BackendChoice {
  readonly name: string
  readonly description: BackendDescription
  readonly settings: Partial<BackendSettings>
  readonly spoiler: Spoiler | undefined
}

/** Understands the name of a backend; throws `UsageError` with what there is. */
export function chooseBackend(name: string): BackendChoice {
  const [path, spoilerName, ...rest] = name.split('+')
  const spoiler = spoilers.find((known) => known === spoilerName)
  if (rest.length > 0 || (spoilerName !== undefined && spoiler === undefined)) {
    throw new UsageError(
      `--backend '${name}': after '+' comes one of ${spoilers.join(', ')}, which spoil it on purpose`,
    )
  }
  if (isExpression(path)) {
    return { name, description: describeExpression(path, chooseVariant), settings: {}, spoiler }
  }
  return { name, ...chooseVariant(path), spoiler }
}

function chooseVariant(name: string): Pick<BackendChoice, 'description' | 'settings'> {
  const [baseName, ...variantNames] = name.split(':')
  const description = backends.find((backend) => backend.name === baseName)
  if (description === undefined) {
    const known = [...backendNames(), ...composerNames.map((composer) => `${composer}(…)`)]
    throw new UsageError(`--backend '${name}' is not known; there are ${known.join(', ')}`)
  }
  let settings: Partial<BackendSettings> = {}
  for (const variantName of variantNames) {
    const variant = description.variants[variantName]
    if (variant === undefined) {
      const known = Object.keys(description.variants)
      const hint = known.length === 0 ? 'it has no variants' : `there are ${known.join(', ')}`
      throw new UsageError(`--backend '${name}': ${baseName} has no variant '${variantName}'; ${hint}`)
    }
    settings = { ...settings, ...variant }
  }
  return { description, settings }
}

/** Loads the pool, a backend, and the native code that both use, so that a baseline of memory has them. */
export async function loadModules(description: BackendDescription): Promise<void> {
  const [{ available }] = await Promise.all([
    import('@spillway/native'),
    import('@spillway/pool'),
    description.load(),
  ])
  available()
}

/** All names, variants included. */
export function backendNames(): string[] {
  return backends.flatMap((backend) => [
    backend.name,
    ...Object.keys(backend.variants).map((variant) => `${backend.name}:${variant}`),
  ])
}
