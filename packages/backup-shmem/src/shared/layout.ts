// Not by name: a Node without it has to get as far as the message that it is too old.
import * as zlib from 'node:zlib'
import { maxPageSizeBytes, minPageSizeBytes, SpillwayError } from '@spillway/core'
import type { Owner } from './owner.ts'

/**
 * A shared file, little-endian:
 *
 *   0          header, 4096 bytes, written before the file gets its name and never changed while it has one
 *   4096       handle table: for each slot a double, the handle of the page that is there now, 0 for none
 *   data       pages, from the next multiple of 2 MiB on
 *
 *   header   0  'SPILLSHM'            40  data offset      f64
 *            8  version       u32     48  owner's pid      f64
 *           12  page size     u32     56  owner's start    f64
 *           16  slots         f64     64  owner's pid namespace f64
 *           24  slot range    f64     72  1: the owner holds a lock on the file, u32
 *           32  table offset  f64     76  CRC-32 of bytes 0 to 75, u32
 */
export interface SharedHeader {
  readonly pageSizeBytes: number
  readonly capacitySlots: number
  /** Handles are `generation × slotRange + slot`. */
  readonly slotRange: number
  readonly owner: Owner
  /** The owner holds a lock on the file as long as it lives; without native code it cannot. */
  readonly isLocked: boolean
}

export interface SharedLayout {
  readonly tableOffsetBytes: number
  readonly dataOffsetBytes: number
  readonly fileBytes: number
}

export const headerBytes = 4096
export const tableEntryBytes = 8
const version = 2
const magic = new TextEncoder().encode('SPILLSHM')
const lockedOffset = 72
const checksumOffset = 76
const dataAlignmentBytes = 2 * 1024 ** 2

export function layoutOf(pageSizeBytes: number, capacitySlots: number): SharedLayout {
  const tableEnd = headerBytes + capacitySlots * tableEntryBytes
  const dataOffsetBytes = Math.ceil(tableEnd / dataAlignmentBytes) * dataAlignmentBytes
  return {
    tableOffsetBytes: headerBytes,
    dataOffsetBytes,
    fileBytes: dataOffsetBytes + capacitySlots * pageSizeBytes,
  }
}

export function encodeHeader(header: SharedHeader): Uint8Array {
  const bytes = new Uint8Array(headerBytes)
  const view = new DataView(bytes.buffer)
  const layout = layoutOf(header.pageSizeBytes, header.capacitySlots)
  bytes.set(magic)
  view.setUint32(8, version, true)
  view.setUint32(12, header.pageSizeBytes, true)
  view.setFloat64(16, header.capacitySlots, true)
  view.setFloat64(24, header.slotRange, true)
  view.setFloat64(32, layout.tableOffsetBytes, true)
  view.setFloat64(40, layout.dataOffsetBytes, true)
  view.setFloat64(48, header.owner.pid, true)
  view.setFloat64(56, header.owner.startTicks, true)
  view.setFloat64(64, header.owner.namespace, true)
  view.setUint32(lockedOffset, header.isLocked ? 1 : 0, true)
  view.setUint32(checksumOffset, zlib.crc32(bytes.subarray(0, checksumOffset)), true)
  return bytes
}

/** Whether these bytes begin like a shared file. */
export function hasMagic(bytes: Uint8Array): boolean {
  return bytes.byteLength >= magic.byteLength && magic.every((byte, index) => bytes[index] === byte)
}

/**
 * Reads a header and believes nothing: `EINVAL` for a file that is none of ours or of another version, `EBADMSG` for
 * one that is torn or says what cannot be.
 */
export function decodeHeader(bytes: Uint8Array, fileBytes: number, name: string): SharedHeader {
  if (bytes.byteLength < headerBytes || !hasMagic(bytes)) {
    throw new SpillwayError('EINVAL', `${name} is not a shared backup`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const found = view.getUint32(8, true)
  if (found !== version) {
    throw new SpillwayError('EINVAL', `${name} has format ${found}; this version reads format ${version}`)
  }
  if (view.getUint32(checksumOffset, true) !== zlib.crc32(bytes.subarray(0, checksumOffset))) {
    throw new SpillwayError('EBADMSG', `the header of ${name} does not match its checksum`)
  }
  const header = {
    pageSizeBytes: view.getUint32(12, true),
    capacitySlots: view.getFloat64(16, true),
    slotRange: view.getFloat64(24, true),
    owner: {
      pid: view.getFloat64(48, true),
      startTicks: view.getFloat64(56, true),
      namespace: view.getFloat64(64, true),
    },
    isLocked: view.getUint32(lockedOffset, true) === 1,
  }
  const { pageSizeBytes, capacitySlots, slotRange, owner } = header
  const isPossible =
    isPowerOfTwo(pageSizeBytes) &&
    pageSizeBytes >= minPageSizeBytes &&
    pageSizeBytes <= maxPageSizeBytes &&
    isWhole(capacitySlots, 1, 2 ** 40) &&
    isPowerOfTwo(slotRange) &&
    slotRange >= capacitySlots &&
    isWhole(owner.pid, 1, 2 ** 32) &&
    isWhole(owner.startTicks, 0, Number.MAX_SAFE_INTEGER) &&
    isWhole(owner.namespace, 0, Number.MAX_SAFE_INTEGER)
  if (!isPossible) throw new SpillwayError('EBADMSG', `the header of ${name} says what cannot be`)
  const layout = layoutOf(pageSizeBytes, capacitySlots)
  if (
    view.getFloat64(32, true) !== layout.tableOffsetBytes ||
    view.getFloat64(40, true) !== layout.dataOffsetBytes ||
    fileBytes !== layout.fileBytes
  ) {
    throw new SpillwayError(
      'EBADMSG',
      `${name} has ${fileBytes} bytes; by its header it must have ${layout.fileBytes}`,
    )
  }
  return header
}

function isPowerOfTwo(value: number): boolean {
  return isWhole(value, 1, 2 ** 40) && 2 ** Math.round(Math.log2(value)) === value
}

function isWhole(value: number, least: number, most: number): boolean {
  return Number.isInteger(value) && value >= least && value <= most
}
