import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Random } from '../random.ts'

/** Data that is the same in every run, for what depends on its content. */
export const dataSets = ['half-zeros', 'records', 'text', 'random'] as const
export type DataSet = (typeof dataSets)[number]

const setBytes = 16 * 2 ** 20
const pageBytes = 4096

/**
 * Writes 16 MiB of a set to a file of this directory, and returns its path:
 *
 *   half-zeros   each 4 KiB page is random in its first half, and zeros in its second
 *   records      rows of 64 bytes: a rising number, a time, a price that changes little, a category, a name of 64, zeros
 *   text         words of 4096, the frequent ones far more often than the rare ones
 *   random       nothing to be saved
 */
export function writeDataSet(set: DataSet, directory: string): string {
  const path = join(directory, `${set}.data`)
  writeFileSync(path, dataSet(set, setBytes))
  return path
}

/** The first bytes of a set. */
export function dataSet(set: DataSet, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  makers[set](bytes, new Random(1))
  return bytes
}

const makers: Readonly<Record<DataSet, (bytes: Uint8Array, random: Random) => void>> = {
  'half-zeros'(bytes, random) {
    for (let start = 0; start < bytes.length; start += pageBytes) {
      fillRandom(bytes.subarray(start, start + pageBytes / 2), random)
    }
  },
  records: fillRecords,
  text: fillText,
  random: fillRandom,
}

function fillRandom(bytes: Uint8Array, random: Random): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2)
  for (let word = 0; word < words.length; word++) words[word] = random.nextInteger()
}

function fillRecords(bytes: Uint8Array, random: Random): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const names = wordsOf(64, random)
  let time = 1_700_000_000_000
  let price = 100
  for (let start = 0; start + 64 <= bytes.length; start += 64) {
    time += random.below(2000)
    price = Math.max(1, price + (random.below(201) - 100) / 100)
    view.setUint32(start, start / 64, true)
    view.setFloat64(start + 8, time, true)
    view.setFloat64(start + 16, Math.round(price * 100) / 100, true)
    view.setUint32(start + 24, random.below(12), true)
    bytes.set(names[random.below(names.length)].slice(0, 24), start + 32)
  }
}

function fillText(bytes: Uint8Array, random: Random): void {
  const words = wordsOf(4096, random)
  for (let at = 0; at < bytes.length; ) {
    // The cube makes a few words as frequent as they are in a language.
    const word = words[Math.floor(words.length * random.next() ** 3)]
    const part = word.subarray(0, bytes.length - at)
    bytes.set(part, at)
    at += part.length
    if (at < bytes.length) bytes[at++] = random.below(12) === 0 ? 0x0a : 0x20
  }
}

function wordsOf(count: number, random: Random): Uint8Array[] {
  return Array.from({ length: count }, () =>
    Uint8Array.from({ length: 2 + random.below(9) }, () => 0x61 + random.below(26)),
  )
}
