import { createHash } from 'node:crypto'

/** Bytes of the first block of a file. */
export const headerBytes = 4096

/** The first block of a file: what it is, the sum of what follows, and that as JSON. */
export function encodeHeaderBlock(magic: string, header: object): Uint8Array {
  const block = new Uint8Array(headerBytes)
  const body = JSON.stringify(header)
  block.set(new TextEncoder().encode(`${magic}${headerSum(body)}\n${body}\n`))
  return block
}

/** The text of a first block, up to the zeros that fill it. */
export function headerText(block: Uint8Array): string {
  const end = block.indexOf(0)
  return new TextDecoder().decode(end < 0 ? block : block.subarray(0, end))
}

/** What stands beside the body of a header, to notice damage. */
export function headerSum(body: string): string {
  return createHash('sha256').update(body).digest('hex')
}
