import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { seededRandom } from '@spillway/core'
import { expect, it } from 'vitest'
import { openFileBackup } from '../../src/index.ts'
import { runChild } from '../children.ts'
import { scratchDirectory } from '../places.ts'
import { type Content, storedImages } from '../stored-images.ts'

const directory = scratchDirectory()
const seed = Math.floor(Math.random() * 2 ** 12)
const isExhaustive = process.env['SPILLWAY_EXHAUSTIVE'] === '1'
const rounds = Number(process.env['SPILLWAY_KILLS'] ?? (isExhaustive ? 40 : 6))
const timeoutMs = 60_000 + rounds * 20_000
const capacityBytes = 1024 * 4096

interface Told {
  readonly name: string
  readonly content: Content | null
  readonly isOver: boolean
}

it(
  `images are the old or the new one, whole, and nothing else is kept, when the process is killed ${rounds} times or more`,
  async () => {
    const path = join(directory, 'store')
    const random = seededRandom(seed)
    let known = new Map<string, Content>()
    let calls = 0
    // On a busy machine a process may be killed before it has done much: then more of them are.
    for (let round = 1; round <= rounds || calls <= rounds; round++) {
      const child = await runChild('save-images.ts', [path, String(seed + round), String(capacityBytes)])
      await delay(random() * 200)
      await child.kill()
      const lines = (await child.output).split('\n').slice(0, -1)
      const allowed = new Map<string, (string | undefined)[]>()
      for (const [name, content] of known) allowed.set(name, [JSON.stringify(content)])
      for (const { name, content, isOver } of lines.map((line) => JSON.parse(line) as Told)) {
        const next = content === null ? undefined : JSON.stringify(content)
        allowed.set(name, isOver ? [next] : [allowed.get(name)?.[0], next])
        if (isOver) calls++
      }
      await using backup = await openFileBackup({
        path,
        persistent: true,
        keepFreeBytes: 0,
        capacityBytes,
        ownerWaitMs: 10_000,
      })
      known = await storedImages(backup)
      for (const name of new Set([...allowed.keys(), ...known.keys()])) {
        const content = known.get(name)
        expect(allowed.get(name), `seed ${seed}, round ${round}, image ${name}`).toContain(
          content && JSON.stringify(content),
        )
      }
    }
  },
  timeoutMs,
)
