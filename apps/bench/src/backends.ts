import type { BackendDescription, BackendSettings } from './backend-description.ts'
import { composerNames, describeExpression, isExpression } from './backend-expressions.ts'
import { describeModule, isModulePath } from './backend-module.ts'
import { UsageError } from './usage-error.ts'

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

/** A backend as named on the command line: `file:uring:unchecked`, `memory+flip`, `compressed(file)`, `mine=./my-backup.mjs:fast`. */
export interface BackendChoice {
  /** What results call it: its label, or else all that was written. */
  readonly name: string
  /** What was written without the label: `chooseBackend` understands it. */
  readonly spec: string
  readonly description: BackendDescription
  readonly settings: Partial<BackendSettings>
  readonly spoiler: Spoiler | undefined
}

/** Understands the name of a backend; throws `UsageError` with what there is. */
export function chooseBackend(name: string): BackendChoice {
  const [, label, spec] = /^(?:([\w. -]+)=)?(.*)$/s.exec(name)!
  const [path, spoilerName, ...rest] = spec.split('+')
  const spoiler = spoilers.find((known) => known === spoilerName)
  if (rest.length > 0 || (spoilerName !== undefined && spoiler === undefined)) {
    throw new UsageError(
      `--backend '${name}': after '+' comes one of ${spoilers.join(', ')}, which spoil it on purpose`,
    )
  }
  const choice = { name: label ?? spec, spec, spoiler }
  if (isExpression(path)) {
    return { ...choice, description: describeExpression(path, chooseVariant), settings: {} }
  }
  return { ...choice, ...chooseVariant(path) }
}

function chooseVariant(name: string): Pick<BackendChoice, 'description' | 'settings'> {
  const [baseName, ...variantNames] = name.split(':')
  if (isModulePath(baseName)) {
    return { description: describeModule(baseName, variantNames), settings: {} }
  }
  const description = backends.find((backend) => backend.name === baseName)
  if (description === undefined) {
    const known = [...backendNames(), ...composerNames.map((composer) => `${composer}(…)`)]
    throw new UsageError(
      `--backend '${name}' is not known; there are ${known.join(', ')}, and paths of modules like ./my-backup.mjs`,
    )
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

/**
 * Loads the module of a backend that is one, so that what is wrong with it is told before anything is measured; gives back the choice
 * under the title of the module, unless it has a label.
 */
export async function checkBackend(choice: BackendChoice): Promise<BackendChoice> {
  const module = await choice.description.check?.()
  if (module?.title === undefined || choice.name !== choice.spec) return choice
  return { ...choice, name: [module.title, ...choice.spec.split(/(?=[:+])/).slice(1)].join('') }
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
