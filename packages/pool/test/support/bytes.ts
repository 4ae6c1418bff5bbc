/** Bytes that depend on a seed and on where they are, so that a page in the wrong place shows. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length)
  let state = (seed * 2654435761) >>> 0 || 1
  for (let index = 0; index < length; index++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[index] = state
  }
  return bytes
}

/** Where two arrays first differ, −1 when they are equal: vitest takes seconds to compare mebibytes. */
export function firstDifference(found: Uint8Array, expected: Uint8Array): number {
  if (found.byteLength !== expected.byteLength) return Math.min(found.byteLength, expected.byteLength)
  if (Buffer.compare(found, expected) === 0) return -1
  return found.findIndex((byte, index) => byte !== expected[index])
}

export const page = 4096
export const mebibyte = 1024 ** 2
