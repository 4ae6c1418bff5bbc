import { createReadStream } from 'node:fs'
import { crc32 } from 'node:zlib'
import { recordBytes } from '../src/runs.ts'

export interface Summary {
  readonly records: number
  readonly sorted: boolean
  /** Sum of the records' checksums: the same for files that hold the same records in any order. */
  readonly checksum: number
}

/** Reads a file of records once; `node test/summary.ts FILE` prints it. */
export async function summaryOf(path: string): Promise<Summary> {
  let records = 0
  let sorted = true
  let checksum = 0
  let last = Buffer.alloc(recordBytes)
  for await (const piece of createReadStream(path, { highWaterMark: 8192 * recordBytes })) {
    for (let start = 0; start < piece.byteLength; start += recordBytes, records++) {
      const record = piece.subarray(start, start + recordBytes)
      if (Buffer.compare(last, record) > 0) sorted = false
      checksum = (checksum + crc32(record)) % 2 ** 48
      last = record
    }
  }
  return { records, sorted, checksum }
}

if (import.meta.main) console.log(await summaryOf(process.argv[2]))
