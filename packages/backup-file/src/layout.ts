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

export const headerBytes = 4096

const magic = 'spillway backup file 1\n'

/** First block of a named file: who owns it, and what a later reader must know to find its pages. */
export interface Header {
  /** Random name of this backup: no two files ever have the same. */
  readonly instance: string
  readonly pageSizeBytes: number
  readonly dataOffsetBytes: number
  readonly owner: OwnerIdentity
}

export function encodeHeader(header: Header): Uint8Array {
  const block = new Uint8Array(headerBytes)
  const text = new TextEncoder().encode(`${magic}${JSON.stringify(header)}\n`)
  block.set(text)
  return block
}

/** The header, `undefined` when the block does not begin a file of ours. */
export function decodeHeader(block: Uint8Array): Header | undefined {
  const end = block.indexOf(0)
  const text = new TextDecoder().decode(end < 0 ? block : block.subarray(0, end))
  if (!text.startsWith(magic)) return undefined
  try {
    const header = JSON.parse(text.slice(magic.length)) as Header
    return typeof header.instance === 'string' && typeof header.owner?.processId === 'number'
      ? header
      : undefined
  } catch {
    return undefined
  }
}
