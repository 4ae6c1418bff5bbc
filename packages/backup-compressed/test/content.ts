import { seededRandom } from '@spillway/core'

export const pageBytes = 4096

export type Kind = 'random' | 'half' | 'text' | 'zeros' | 'word'
export const kinds: readonly Kind[] = ['random', 'half', 'text', 'zeros', 'word']

/** Pages of one kind of content, each different. */
export function contentOf(kind: Kind, seed: number, pages = 1): Uint8Array {
  const bytes = new Uint8Array(pages * pageBytes)
  const random = seededRandom(seed * 7919 + kinds.indexOf(kind))
  for (let page = 0; page < pages; page++)
    fillPage(bytes.subarray(page * pageBytes, (page + 1) * pageBytes), kind, random)
  return bytes
}

function fillPage(page: Uint8Array, kind: Kind, random: () => number): void {
  if (kind === 'zeros') return
  if (kind === 'word') {
    const word = Array.from({ length: 8 }, () => Math.floor(random() * 256))
    for (let at = 0; at < pageBytes; at++) page[at] = word[at % 8]
    return
  }
  const words = new Uint32Array(page.buffer, page.byteOffset, pageBytes / 4)
  const end = kind === 'half' ? words.length / 2 : words.length
  for (let at = 0; at < end; at++) words[at] = random() * 2 ** 32
  if (kind === 'text') for (let at = 0; at < pageBytes; at++) page[at] = 97 + (page[at] % 13)
}
