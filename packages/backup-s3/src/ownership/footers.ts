import { isSpillwayError, SpillwayError } from '@spillway/core'
import { footerLength, readFooter, type SegmentFooter, trailerBytes } from '../segments/segment-format.ts'
import type { S3Service } from '../service/service.ts'

export interface FooterPlace {
  readonly key: string
  readonly objectBytes: number
  readonly epoch: string
  readonly number: number
  /** Of the footer, where that is known. */
  readonly expectedBytes?: number
  readonly signal?: AbortSignal | undefined
}

/**
 * Reads the footer of a segment: one request, two when it was compacted from many. Rejects with `EBADMSG` when it is not
 * the footer of that segment, `ENOENT` when there is none.
 */
export async function loadFooter(service: S3Service, place: FooterPlace): Promise<SegmentFooter> {
  const { key, objectBytes, epoch, number, signal } = place
  const { expectedBytes = Math.ceil(objectBytes / 1024) + trailerBytes + 16 } = place
  const read = async (bytes: number) => {
    const wanted = Math.min(bytes, objectBytes)
    if (wanted === 0) throw new SpillwayError('EBADMSG', `the segment ${key} is empty`)
    const object = await service.read(key, { offset: objectBytes - wanted, bytes: wanted, signal })
    if (object === undefined) throw new SpillwayError('ENOENT', `the segment ${key} is gone`)
    return object.body
  }
  return onceMoreIfDamaged(async () => {
    let tail = await read(expectedBytes)
    const length = footerLength(tail)
    if (length !== undefined && length > tail.length) tail = await read(length)
    return readFooter(tail, epoch, number)
  })
}

/** What came damaged is asked for once more: the wire may have done it. */
export async function onceMoreIfDamaged<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (!isSpillwayError(error) || error.code !== 'EBADMSG') throw error
    return read()
  }
}
