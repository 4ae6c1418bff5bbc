import { encodeHeaderBlock, headerSum, headerText } from './header-block.ts'
import type { OwnerIdentity } from './owner-identity.ts'

/**
 * How a file is laid out:
 *
 *   0        4 KiB                      2 MiB
 *   ├ header ┼ hole, kept for a manifest ┼ slot 0 ┼ slot 1 ┼ …
 *
 * Slots begin at the largest page size, so that every page is aligned for direct I/O. Only named files have a header;
 * a hole takes no space.
 */
export const dataOffsetBytes = 2 * 1024 * 1024

const anyVersion = 'spillway backup file '
const magic = `${anyVersion}2\n`

/** First block of a named file: who owns it, and what a later reader must know to find its pages. */
export interface Header {
  /** Random name of this backup: no two files ever have the same. */
  readonly instance: string
  readonly pageSizeBytes: number
  readonly dataOffsetBytes: number
  readonly owner: OwnerIdentity
  /** Whether the owner holds a lock as long as he lives. */
  readonly isLocked: boolean
}

export function encodeHeader(header: Header): Uint8Array {
  return encodeHeaderBlock(magic, header)
}

/**
 * The header; `undefined` when the block does not begin a file of ours, `'damaged'` when it does and is not as this version writes it: then
 * nothing in it can be believed.
 */
export function decodeHeader(block: Uint8Array): Header | 'damaged' | undefined {
  const text = headerText(block)
  if (!text.startsWith(magic)) return text.startsWith(anyVersion) ? 'damaged' : undefined
  const [sum, body = ''] = text.slice(magic.length).split('\n')
  if (sum !== headerSum(body)) return 'damaged'
  try {
    const header: unknown = JSON.parse(body)
    return isHeader(header) ? header : 'damaged'
  } catch {
    return 'damaged'
  }
}

function isHeader(value: unknown): value is Header {
  if (typeof value !== 'object' || value === null) return false
  const { instance, pageSizeBytes, dataOffsetBytes, owner, isLocked } = value as Partial<Header>
  const areFields =
    typeof instance === 'string' &&
    typeof pageSizeBytes === 'number' &&
    typeof dataOffsetBytes === 'number' &&
    typeof isLocked === 'boolean'
  if (!areFields || typeof owner !== 'object' || owner === null) return false
  const isTextOrNull = (field: unknown) => field === null || typeof field === 'string'
  return (
    Number.isSafeInteger(owner.processId) &&
    typeof owner.machine === 'string' &&
    [owner.startTicks, owner.bootId, owner.processNamespace].every(isTextOrNull)
  )
}
