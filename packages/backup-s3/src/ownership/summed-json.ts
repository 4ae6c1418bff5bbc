// Not by name: a Node without it has to get as far as the message that it is too old.
import * as zlib from 'node:zlib'

/** The JSON, less its last brace, and the CRC-32 of the JSON as it is without this. */
const summed = /^(.*),"crc32":(\d+)\}$/s

/** The JSON of an object that has a property, with a checksum of itself. */
export function encodeSummed(content: object): Buffer {
  const text = JSON.stringify(content)
  return Buffer.from(`${text.slice(0, -1)},"crc32":${zlib.crc32(text)}}`)
}

/** Reads it. `isWhole`: every byte is as it was written. Throws a SyntaxError for what is no JSON, or no object. */
export function decodeSummed(body: Buffer): { readonly content: object; readonly isWhole: boolean } {
  const text = body.toString()
  const [, start, sum] = summed.exec(text) ?? []
  const json = start === undefined ? text : `${start}}`
  const content: unknown = JSON.parse(json)
  if (typeof content !== 'object' || content === null) throw new SyntaxError('this is no object')
  return { content, isWhole: start !== undefined && zlib.crc32(json) === Number(sum) }
}
