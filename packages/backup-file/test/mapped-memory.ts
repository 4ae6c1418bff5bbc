import { Mapping } from '@spillway/native'

const arenaBytes = 64 * 1024 ** 2
let arena: Uint8Array | undefined
let usedBytes = 0

/** Memory that io_uring and direct I/O take as it is; handed out again after 64 MiB more. */
export function mappedMemory(bytes: number): Uint8Array {
  arena ??= Mapping.anonymous(arenaBytes).view(0, arenaBytes)
  if (usedBytes + bytes > arenaBytes) usedBytes = 0
  usedBytes += bytes
  return arena.subarray(usedBytes - bytes, usedBytes)
}
