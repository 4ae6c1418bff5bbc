import { SpillwayError } from '@spillway/core'
import { decodeSummed, encodeSummed } from './summed-json.ts'

/**
 * The head of a persistent store: who owns it, what it holds, and which segment numbers were never given. It is changed
 * by compare-and-set only (head-register.ts), and nothing else decides: not a lease, not the order of names.
 */
export interface Head {
  readonly format: typeof headFormat
  /** Tells this change from every other. */
  readonly nonce: string
  /** Counts owners; it only rises. */
  readonly epoch: number
  readonly state: 'held' | 'closed'
  /** The owner is taken for dead when the head is older than this. */
  readonly leaseMs: number
  /** For people who look into the bucket, and for those who are told that the store is in use. */
  readonly owner: string
  readonly name: string
  /** The key of the manifest, without the prefix; null: none was ever written, or the store was emptied. */
  readonly manifest: string | null
  /** The one before, which is there as long as this head: for the case that the manifest is damaged. */
  readonly parent: string | null
  /** Segment numbers from here on were never given. The owner gives smaller ones. */
  readonly nextNumber: number
  /** Segments with smaller numbers were removed with the store that they were of. */
  readonly emptiedBelow: number
}

const headFormat = 3

export function encodeHead(head: Omit<Head, 'format'>): Buffer {
  return encodeSummed({ format: headFormat, ...head })
}

/**
 * Reads a head. Throws `ENOTSUP` for another format, `EBADMSG` for anything that is no head, or not as it was written: in
 * both cases somebody may own the store, so it is left alone.
 */
export function decodeHead(body: Buffer, key: string): Head {
  let head: Head
  let isWhole: boolean
  try {
    const decoded = decodeSummed(body)
    head = decoded.content as Head
    isWhole = decoded.isWhole
  } catch (cause) {
    throw new SpillwayError('EBADMSG', `the head ${key} is damaged`, { cause })
  }
  if (Number.isInteger(head.format) && head.format !== headFormat) {
    throw new SpillwayError(
      'ENOTSUP',
      `the head ${key} has format ${head.format}; this version knows ${headFormat}`,
    )
  }
  // One bit in a number would be another store: segments that are taken for garbage, numbers that are given twice.
  const isHead =
    isWhole &&
    head.format === headFormat &&
    typeof head.nonce === 'string' &&
    (head.state === 'held' || head.state === 'closed') &&
    [head.epoch, head.leaseMs, head.nextNumber, head.emptiedBelow].every(Number.isFinite)
  if (!isHead) throw new SpillwayError('EBADMSG', `the head ${key} is damaged`)
  return head
}
