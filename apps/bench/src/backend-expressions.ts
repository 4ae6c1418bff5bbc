import type { Backup } from '@spillway/core'
import type { BackendDescription, BackendSettings } from './backend-description.ts'
import { parseByteSize } from './sizes.ts'
import { UsageError } from './usage-error.ts'

/**
 * Backends made of backends, as the command line names them:
 *
 *   compressed(file)   encrypted(file:unchecked)   tiered(shmem:256MiB,file)   compressed(tiered(shmem:256MiB,encrypted(file)))
 *
 * A size after a backend is how much it holds; without one it holds what the run takes.
 */

/** A backend that is made of no other, as it was chosen. */
export interface ChosenPart {
  readonly description: BackendDescription
  readonly settings: Partial<BackendSettings>
}

interface Composer {
  readonly mostParts: number
  load(): Promise<unknown>
  make(parts: readonly Backup[]): Promise<Backup>
}

const composers: Readonly<Record<string, Composer>> = {
  tiered: {
    mostParts: 8,
    load: () => import('@spillway/backup-tiered'),
    make: async (tiers) =>
      (await import('@spillway/backup-tiered')).tieredBackup({ tiers, promote: 'second' }),
  },
  compressed: {
    mostParts: 1,
    load: () => import('@spillway/backup-compressed'),
    make: async ([inner]) => (await import('@spillway/backup-compressed')).compressedBackup(inner),
  },
  encrypted: {
    mostParts: 1,
    load: () => import('@spillway/backup-encrypted'),
    make: async ([inner]) => (await import('@spillway/backup-encrypted')).encryptedBackup(inner),
  },
}

/** The names of what backends can be made of others with. */
export const composerNames: readonly string[] = Object.keys(composers)

/** The names in a list, which ends at commas outside of parentheses. */
export function splitList(text: string): string[] {
  const names: string[] = []
  let depth = 0
  let start = 0
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '(') depth++
    else if (text[at] === ')') depth--
    else if (text[at] === ',' && depth === 0) {
      names.push(text.slice(start, at).trim())
      start = at + 1
    }
  }
  names.push(text.slice(start).trim())
  return names
}

export function isExpression(text: string): boolean {
  return text.includes('(')
}

/** Describes a backend made of others; `choose` knows those that are made of none. Throws `UsageError`. */
export function describeExpression(text: string, choose: (name: string) => ChosenPart): BackendDescription {
  const match = /^\s*(\w+)\((.*)\)\s*$/s.exec(text)
  const composer = match === null ? undefined : composers[match[1]]
  if (match === null || composer === undefined) {
    throw new UsageError(
      `--backend '${text}' is not made of backends as ${composerNames.join(', ')} are: write for example tiered(shmem:256MiB,file)`,
    )
  }
  const names = splitList(match[2])
  if (names.length > composer.mostParts || names.includes('')) {
    throw new UsageError(
      `--backend '${text}': ${match[1]} is made of ${composer.mostParts === 1 ? 'one backend' : `one to ${composer.mostParts} backends`}`,
    )
  }
  return composed(
    text,
    composer,
    names.map((name) => describePart(name, choose)),
  )
}

function describePart(text: string, choose: (name: string) => ChosenPart): BackendDescription {
  if (isExpression(text)) return describeExpression(text, choose)
  const words = text.split(':')
  const sizes = words.slice(1).filter((word) => /^\d/.test(word))
  const { description, settings } = choose(words.filter((word) => !sizes.includes(word)).join(':'))
  if (sizes.length > 1) throw new UsageError(`--backend '${text}' has two sizes`)
  const own = sizes.map((size) => parseByteSize(size, `--backend '${text}': `))
  const capacity = own.length === 0 ? {} : { capacityBytes: own[0] }
  return {
    ...description,
    // A part that holds less than the run takes is small.
    usesMemory: description.usesMemory && own.length === 0,
    open: (common) => description.open({ ...common, ...settings, ...capacity }),
  }
}

/** What is slowest decides what the whole is held against. */
function composed(
  name: string,
  composer: Composer,
  parts: readonly BackendDescription[],
): BackendDescription {
  const { backupCeilings, restoreCeilings } = parts[parts.length - 1]
  return {
    name,
    title: name,
    usesMemory: parts.some(({ usesMemory }) => usesMemory),
    storesInProcess: parts.some(({ storesInProcess }) => storesInProcess),
    backupCeilings,
    restoreCeilings,
    variants: {},
    load: () => Promise.all([composer.load(), ...parts.map((part) => part.load())]),
    open: (settings) => openComposed(composer, parts, settings),
  }
}

async function openComposed(
  composer: Composer,
  parts: readonly BackendDescription[],
  settings: BackendSettings,
): Promise<Backup> {
  const opened: Backup[] = []
  try {
    for (const part of parts) opened.push(await part.open(settings))
    return await composer.make(opened)
  } catch (failure) {
    for (const backup of opened) await backup.close()
    throw failure
  }
}
