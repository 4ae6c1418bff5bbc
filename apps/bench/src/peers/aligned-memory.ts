/** Page-aligned memory: direct I/O refuses other. The backing of a resizable buffer begins on a page. */
export function alignedMemory(lengthBytes: number): Uint8Array {
  return new Uint8Array(new ArrayBuffer(lengthBytes, { maxByteLength: lengthBytes }), 0, lengthBytes)
}
