import type { Backup } from '@spillway/core'
import { pageBytes } from './pages.ts'

/** Images of the tests: each block says which word each of its pages is filled with. */
export type Content = readonly (readonly number[])[]

export function blockOf(words: readonly number[]): Uint8Array {
  return Buffer.from(JSON.stringify(words))
}

export function pagesOf(words: readonly number[]): Uint8Array {
  const pageWords = pageBytes / 4
  const pages = new Uint32Array(words.length * pageWords)
  for (const [page, word] of words.entries()) pages.fill(word, page * pageWords, (page + 1) * pageWords)
  return new Uint8Array(pages.buffer)
}

/** All images by name, each read whole. Throws when a page is not what its image says, or pages are kept that no image names. */
export async function storedImages(backup: Backup): Promise<Map<string, Content>> {
  const contents = new Map<string, Content>()
  const kept = new Set<number>()
  for (const name of await backup.images!.names()) {
    const { body, keeps } = await backup.images!.load(name)
    const content = body.map((block) => JSON.parse(Buffer.from(block).toString()) as number[])
    for (const [index, words] of content.entries()) {
      const into = new Uint8Array(words.length * pageBytes)
      const { error } = await backup.copyPages([...keeps[index]!], [into])
      if (error !== undefined) throw error
      if (Buffer.compare(into, pagesOf(words)) !== 0)
        throw new Error(`block ${index} of ${name} has other pages`)
    }
    for (const { first, count } of keeps.flatMap((runs) => [...runs]))
      for (let at = 0; at < count; at++) kept.add(first + at)
    await backup.drop(keeps.flatMap((runs) => [...runs]))
    contents.set(name, content)
  }
  const { livePages } = backup.stats()
  if (livePages !== kept.size) throw new Error(`${livePages} pages live, and images name ${kept.size}`)
  return contents
}
