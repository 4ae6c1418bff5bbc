import { Pack } from './pack.ts'
import type { Built } from './pack-builder.ts'
import type { Places } from './places.ts'

/** A pack, and its bytes in whole pages. `bytes` lies in memory that goes on to the end of its last page. */
export function makePack(
  places: Places,
  parts: {
    readonly firstNumber: number
    readonly windows: number
    readonly units: Built['units']
    readonly bytes: Uint8Array
    readonly unitPages: number
    readonly pageSizeBytes: number
  },
): { pack: Pack; memory: Uint8Array } {
  const { bytes, pageSizeBytes } = parts
  const pack = new Pack({ ...parts, id: places.newPackId(), lengthBytes: bytes.byteLength })
  pack.firstInnerPage = places.newInnerPages(pack.pageCount)
  return { pack, memory: new Uint8Array(bytes.buffer, bytes.byteOffset, pack.pageCount * pageSizeBytes) }
}

/** Bytes that are missing to whole pages. */
export function padding(bytes: number, pageSizeBytes: number): number {
  return (pageSizeBytes - (bytes % pageSizeBytes)) % pageSizeBytes
}
