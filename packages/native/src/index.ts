/**
 * System calls, OpenSSL and libzstd through koffi: memory mappings, memfd, io_uring, holes, locks.
 *
 * @module @spillway/native
 */

export { AesGcm } from './aes-gcm.ts'
export { available, type NativeAvailability } from './available.ts'
export {
  cachedBytes,
  type DirectAlignment,
  deviceGeometry,
  directAlignment,
  discardInThread,
  duplicate,
  overwriteInPlace,
  setDirect,
  tellsExtents,
} from './descriptors.ts'
export type { NativeError } from './errors.ts'
export { allocate, allocateInThread, createMemfd, punchHole, punchHoleInThread } from './files.ts'
export { isFileLocked, type LockRange, lockFile, unlockFile } from './locks.ts'
export { isMapped, Mapping, mappedAddress, systemPageBytes } from './mapping.ts'
export { Ring } from './ring.ts'
export { Zstd } from './zstd.ts'
