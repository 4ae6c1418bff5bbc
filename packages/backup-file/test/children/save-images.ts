import { writeSync } from 'node:fs'
import { type HandleRun, seededRandom } from '@spillway/core'
import { openFileBackup } from '../../src/index.ts'
import { blockOf, pagesOf } from '../stored-images.ts'

// Saves, replaces, changes and removes images until it is killed, and tells of each what it is about to make of it, and that it has.
const [path, seed, capacityBytes] = process.argv.slice(2)
const random = seededRandom(Number(seed))
const upTo = (most: number) => 1 + Math.floor(random() * most)
const backup = await openFileBackup({
  path,
  persistent: true,
  keepFreeBytes: 0,
  warmBytes: 64 * 1024,
  capacityBytes: Number(capacityBytes),
})
const images = backup.images!
let word = Number(seed) * 2 ** 18
const words = () => Array.from({ length: upTo(40) }, () => ++word)
const tell = (name: string, content: number[][] | null, isOver: boolean) =>
  writeSync(1, `${JSON.stringify({ name, content, isOver })}\n`)

async function stored(content: readonly number[]): Promise<readonly HandleRun[]> {
  const { handles, error } = await backup.backupPages([pagesOf(content)])
  if (error !== undefined) throw error
  return handles
}

for (;;) {
  const name = 'abc'[Math.floor(random() * 3)]!
  const isThere = (await images.names()).includes(name)
  const scratch = await stored(words())
  if (isThere && random() < 0.2) {
    tell(name, null, false)
    await images.remove(name)
    tell(name, null, true)
  } else if (isThere && random() < 0.6) {
    const { body, keeps, revision } = await images.load(name)
    const before = body.map((block) => JSON.parse(Buffer.from(block).toString()) as number[])
    const index = Math.floor(random() * (before.length + (before.length < 4 ? 1 : 0)))
    const content = [...before]
    content[index] = words()
    const fresh = await stored(content[index])
    tell(name, content, false)
    const change = { body: [{ index, bytes: blockOf(content[index]) }], keeps: [fresh], since: revision }
    await images.save(name, change)
    tell(name, content, true)
    await backup.drop([...keeps.flatMap((runs) => [...runs]), ...fresh])
  } else {
    const content = Array.from({ length: upTo(3) }, words)
    const fresh = await Promise.all(content.map(stored))
    tell(name, content, false)
    await images.save(name, {
      body: content.map((block, index) => ({ index, bytes: blockOf(block) })),
      keeps: fresh,
    })
    tell(name, content, true)
    await backup.drop(fresh.flat())
  }
  await backup.drop(scratch)
}
