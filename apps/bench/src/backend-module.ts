import { existsSync, mkdtempSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Backup } from '@spillway/core'
import type { BackendDescription, BackendSettings } from './backend-description.ts'
import type { BackendModule } from './backend-module-types.ts'
import { within } from './time-limit.ts'
import { failureLine, UsageError } from './usage-error.ts'

/** How long a module may take to load. */
const loadLimitMs = 10_000

const methods = ['backupPages', 'copyPages', 'drop', 'bytesAvailable', 'reserve', 'stats', 'close'] as const

/** Whether the name of a backend is the path of a module. */
export function isModulePath(name: string): boolean {
  return /\.[cm]?[jt]s$/.test(name)
}

/** A backend that a module makes. Throws `UsageError` when there is no such file. */
export function describeModule(path: string, variantNames: readonly string[]): BackendDescription {
  const file = resolve(path)
  if (!existsSync(file)) throw new UsageError(`--backend '${path}' does not exist; give the path of a module`)
  const load = () => loadModule(path, file, variantNames)
  return {
    name: path,
    title: basename(path),
    usesMemory: false,
    storesInProcess: false,
    backupCeilings: [],
    restoreCeilings: [],
    variants: {},
    load,
    check: load,
    open: async (settings) => openModule(path, await load(), variantNames, settings),
  }
}

/** Throws `UsageError` that says what is wrong with the module. */
async function loadModule(
  path: string,
  file: string,
  variantNames: readonly string[],
): Promise<BackendModule> {
  let module: Partial<BackendModule>
  try {
    module = await within(loadLimitMs, import(pathToFileURL(file).href), 'loading it did not end')
  } catch (failure) {
    throw new UsageError(`--backend '${path}' cannot be loaded: ${failureLine(failure)}`)
  }
  if (typeof module.open !== 'function') {
    throw new UsageError(`--backend '${path}' exports no function 'open'; see the README of @spillway/bench`)
  }
  const known = Object.keys(module.variants ?? {})
  const unknown = variantNames.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    const hint = known.length === 0 ? 'it exports no variants' : `there are ${known.join(', ')}`
    throw new UsageError(`--backend '${path}' has no variant '${unknown}'; ${hint}`)
  }
  return module as BackendModule
}

async function openModule(
  path: string,
  module: BackendModule,
  variantNames: readonly string[],
  { capacityBytes, pageSizeBytes, directory, checksums }: BackendSettings,
): Promise<Backup> {
  const settings = {
    capacityBytes,
    pageSizeBytes,
    directory: mkdtempSync(join(directory, 'backend-')),
    checksums,
    ...Object.assign({}, ...variantNames.map((name) => module.variants?.[name])),
  }
  let backup: Backup
  try {
    backup = await module.open(settings)
  } catch (failure) {
    throw new Error(`${path}: open() failed: ${failureLine(failure)}`, { cause: failure })
  }
  const missing = methods.find((name) => typeof backup?.[name] !== 'function')
  if (missing !== undefined) throw new Error(`${path}: what open() gave is no backup: it has no ${missing}()`)
  const { pageSizeBytes: opened } = backup.capabilities ?? {}
  if (opened === pageSizeBytes) return backup
  await backup.close()
  throw new Error(
    `${path}: open() gave a backup with pages of ${opened} bytes and was asked for ${pageSizeBytes}`,
  )
}
