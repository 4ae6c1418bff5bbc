import { closeSync, openSync, readSync, writeSync } from 'node:fs'

/** Changes one bit of a file; again, and it is as it was. */
export function damage(path: string, offsetBytes: number): void {
  const fileDescriptor = openSync(path, 'r+')
  const byte = new Uint8Array(1)
  readSync(fileDescriptor, byte, 0, 1, offsetBytes)
  byte[0]! ^= 0x10
  writeSync(fileDescriptor, byte, 0, 1, offsetBytes)
  closeSync(fileDescriptor)
}
