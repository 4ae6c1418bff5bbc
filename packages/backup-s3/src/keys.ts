/**
 * Names of objects. Everything lies under one prefix:
 *
 *   leases/<epoch>                lease of an owner (lease.ts)
 *   leases/<epoch>.fence-<id>     someone is about to sweep that owner's pages
 *   <epoch>/s-<number>            segment (segment-format.ts)
 *   <epoch>/m-<sequence>          manifest of a persistent store (manifest.ts)
 *   <epoch>/m-0000000000          of a scratch store: there until a sweep begins to delete it (lease.ts)
 *
 * An epoch is written by one owner only and no name is used twice: scratch epochs are random (`scratch-…`), those of a
 * persistent store are counted (`store-…`), so that exactly one process can create the next one.
 */

/** Segments are told apart by numbers of 52 − 21 = 31 bits, see handles.ts. */
const numberDigits = 10
const epochDigits = 8
/** Begins the names of all epochs of a persistent store. */
export const storePrefix = 'store-'

/** `''`, or the prefix with one slash at its end. */
export function normalizePrefix(prefix: string): string {
  return prefix === '' || prefix.endsWith('/') ? prefix : `${prefix}/`
}

export class KeySpace {
  readonly prefix: string

  constructor(prefix: string) {
    this.prefix = normalizePrefix(prefix)
  }

  get leasesPrefix(): string {
    return `${this.prefix}leases/`
  }

  lease(epoch: string): string {
    return `${this.leasesPrefix}${epoch}`
  }

  fence(epoch: string, sweeper: string): string {
    return `${this.lease(epoch)}.fence-${sweeper}`
  }

  epochPrefix(epoch: string): string {
    return `${this.prefix}${epoch}/`
  }

  segment(epoch: string, number: number): string {
    return `${this.epochPrefix(epoch)}${segmentName(number)}`
  }

  manifest(epoch: string, sequence: number): string {
    return `${this.epochPrefix(epoch)}m-${String(sequence).padStart(numberDigits, '0')}`
  }

  witness(epoch: string): string {
    return this.manifest(epoch, 0)
  }

  /** What a listed key is; undefined for keys that are none of ours. */
  parse(key: string): ParsedKey | undefined {
    if (!key.startsWith(this.prefix)) return undefined
    const rest = key.slice(this.prefix.length)
    const slash = rest.indexOf('/')
    if (slash < 0) return undefined
    const folder = rest.slice(0, slash)
    const name = rest.slice(slash + 1)
    if (folder === 'leases') {
      const fence = name.indexOf('.fence-')
      const epoch = fence < 0 ? name : name.slice(0, fence)
      if (!isEpoch(epoch)) return undefined
      return { kind: fence < 0 ? 'lease' : 'fence', epoch, number: 0 }
    }
    if (!isEpoch(folder)) return undefined
    const match = /^([sm])-(\d+)$/.exec(name)
    if (match === null) return undefined
    return { kind: match[1] === 's' ? 'segment' : 'manifest', epoch: folder, number: Number(match[2]) }
  }
}

export interface ParsedKey {
  readonly kind: 'lease' | 'fence' | 'segment' | 'manifest'
  readonly epoch: string
  readonly number: number
}

/** The part of a segment's key that its checksums are bound to, next to the epoch. */
export function segmentName(number: number): string {
  return `s-${String(number).padStart(numberDigits, '0')}`
}

export function scratchEpoch(randomHex: string): string {
  return `scratch-${randomHex}`
}

export function persistentEpoch(count: number): string {
  return `${storePrefix}${String(count).padStart(epochDigits, '0')}`
}

/** The count of a persistent epoch; undefined for a scratch one. */
export function persistentCount(epoch: string): number | undefined {
  return epoch.startsWith(storePrefix) ? Number(epoch.slice(storePrefix.length)) : undefined
}

function isEpoch(name: string): boolean {
  return /^(scratch-[0-9a-f]+|store-\d+)$/.test(name)
}
