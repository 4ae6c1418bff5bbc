/**
 * Names of objects. Everything lies under one prefix:
 *
 *   heads/<version>               head of a persistent store: who owns it, what is in it (head-register.ts)
 *   leases/<epoch>                lease of the owner of a scratch store (scratch-owner.ts); of a persistent store: what
 *                                 an opening process writes and removes, to see whether it may (opening.ts)
 *   leases/<epoch>.fence-<id>     someone is about to sweep that owner's pages
 *   <epoch>/s-<number>            segment (segment-format.ts)
 *   <epoch>/m-<sequence>          manifest of a persistent store (manifest.ts)
 *   <epoch>/m-0000000000          of a scratch store: there until a sweep begins to delete it (scratch-owner.ts)
 *
 * An epoch is written by one owner only and no name of a segment or manifest is used twice: scratch epochs are random
 * (`scratch-…`), those of a persistent store (`store-…`) are counted by its head.
 */

/** Segments are told apart by numbers of 52 − 21 = 31 bits, see handles.ts. */
const numberDigits = 10
const epochDigits = 8
/** Begins the names of all epochs of scratch stores. */
const scratchPrefix = 'scratch-'
/** Begins the names of all epochs of a persistent store. */
const storePrefix = 'store-'

/** `''`, or the prefix with one slash at its end. */
export function normalizePrefix(prefix: string): string {
  return prefix === '' || prefix.endsWith('/') ? prefix : `${prefix}/`
}

export class KeySpace {
  readonly prefix: string

  constructor(prefix: string) {
    this.prefix = normalizePrefix(prefix)
  }

  /** Of the versions of a persistent store's head. */
  get headsPrefix(): string {
    return `${this.prefix}heads/`
  }

  head(version: number): string {
    return `${this.headsPrefix}${String(version).padStart(numberDigits, '0')}`
  }

  /** The version of a head by its key; undefined for other keys. */
  headVersion(key: string): number | undefined {
    const name = key.startsWith(this.headsPrefix) ? key.slice(this.headsPrefix.length) : ''
    return /^\d+$/.test(name) ? Number(name) : undefined
  }

  /** Of everything in the epochs of a persistent store. */
  get storesPrefix(): string {
    return `${this.prefix}${storePrefix}`
  }

  /** Of what processes that open a persistent store try their permissions with. */
  get storeLeasesPrefix(): string {
    return `${this.leasesPrefix}${storePrefix}`
  }

  get leasesPrefix(): string {
    return `${this.prefix}leases/`
  }

  /** Of everything in the epochs of scratch stores. */
  get scratchPrefix(): string {
    return `${this.prefix}${scratchPrefix}`
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
    return `${this.prefix}${this.manifestName(epoch, sequence)}`
  }

  /** The key of a manifest, without the prefix. */
  manifestName(epoch: string, sequence: number): string {
    return `${epoch}/m-${String(sequence).padStart(numberDigits, '0')}`
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
  return `${scratchPrefix}${randomHex}`
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
