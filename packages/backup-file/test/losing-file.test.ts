import { describe, expect, it } from 'vitest'
import { type CrashState, crashStates } from './losing-file/crash-states.ts'
import { FileContent } from './losing-file/file-content.ts'
import { JournalledCounter, recoveredCount } from './losing-file/journalled-counter.ts'
import { type Change, LosingFile, type LosingFileOptions, type SyncFate } from './losing-file/losing-file.ts'
import { ReadTree } from './losing-file/read-tree.ts'

const seed = Math.floor(Math.random() * 2 ** 32)

/** A few bytes of a file, one character each; `-` for those that were never written. */
function textOf({ content }: CrashState, lengthBytes = 3): string {
  const bytes = new Uint8Array(lengthBytes)
  content.read(bytes, 0)
  return [...bytes].map((byte) => (byte === 0 ? '-' : String.fromCharCode(byte))).join('')
}

function statesOf(file: LosingFile, { mayTear = false, from = 0 } = {}): CrashState[] {
  const states = [...crashStates(file.start, file.log, { seed, mayTear: () => mayTear })]
  return states.filter(({ at }) => at >= from)
}

async function writeText(file: LosingFile, text: string, offsetBytes = 0): Promise<void> {
  await file.write(Buffer.from(text), offsetBytes)
}

/** The crash states in which the counter is not what it may be: what was acknowledged last, or what was begun then. */
function wrongCounts(file: LosingFile): string[] {
  const wrong: string[] = []
  for (const state of crashStates(file.start, file.log, { seed })) {
    const acknowledged = (state.marks.at(-1) as number | undefined) ?? 0
    const found = recoveredCount(state.content)
    if (found === acknowledged || found === acknowledged + 1) continue
    wrong.push(`${found} instead of ${acknowledged} or one more, ${state.describe()}`)
  }
  return wrong
}

async function counted(options: LosingFileOptions, settings = {}): Promise<LosingFile> {
  const file = new LosingFile(options)
  const counter = new JournalledCounter(file)
  try {
    for (let count = 0; count < 4; count++) file.mark(await counter.increment(settings))
  } catch (failure) {
    expect(failure).toMatchObject({ code: 'EIO' })
  }
  return file
}

function nthSync(position: number, fate: SyncFate): LosingFileOptions {
  let syncs = 0
  return { fateOfSync: () => (syncs++ % 8 === position ? fate : 'works') }
}

describe('the losing file', () => {
  it('leaves every subset of what was not synced, each once', async () => {
    const file = new LosingFile()
    for (const [offset, text] of ['a', 'b', 'c'].entries()) await writeText(file, text, offset)
    const found = statesOf(file).map((state) => textOf(state))
    expect(found.sort()).toEqual(['---', '--c', '-b-', '-bc', 'a--', 'a-c', 'ab-', 'abc'])
  })

  it('keeps what was synced, and lets a later write be lost from over it', async () => {
    const file = new LosingFile()
    await writeText(file, 'abc')
    await file.sync()
    await writeText(file, 'X')
    await file.punch(2, 1)
    await file.truncate(1)
    const last = statesOf(file, { from: file.log.length }).map((state) => textOf(state))
    expect(last.sort()).toEqual(['X--', 'X--', 'a--', 'a--'])
    const lengths = statesOf(file, { from: 2 }).map(({ content }) => content.lengthBytes)
    expect(new Set(lengths)).toEqual(new Set([1, 3]))
    expect(statesOf(file, { from: 2 })[0]?.describe()).toBe('after 2 of 5 steps, of 0 not durable: none lost')
  })

  it('does not let a sync cover a write that was not complete when it began', async () => {
    const file = new LosingFile()
    const writing = writeText(file, 'a')
    await Promise.all([file.sync(), writing])
    expect(new Set(statesOf(file, { from: 2 }).map((state) => textOf(state, 1)))).toEqual(new Set(['-', 'a']))
    await file.sync()
    expect(statesOf(file, { from: 3 }).map((state) => textOf(state, 1))).toEqual(['a'])
  })

  it('may lose for ever what a failed sync covered, whatever is synced later', async () => {
    const file = new LosingFile(nthSync(0, 'fails'))
    await writeText(file, 'a')
    await expect(file.sync()).rejects.toMatchObject({ code: 'EIO' })
    await writeText(file, 'b', 1)
    await file.sync()
    const found = statesOf(file, { from: file.log.length }).map((state) => textOf(state, 2))
    expect(found.sort()).toEqual(['-b', 'ab'])
  })

  it('tears a write at 512 bytes', async () => {
    const file = new LosingFile()
    await file.write(new Uint8Array(1536).fill(49), 0)
    const found = statesOf(file, { mayTear: true }).map(({ content }) => {
      const bytes = new Uint8Array(1536)
      content.read(bytes, 0)
      return [0, 512, 1024].map((at) => bytes[at] && bytes[at + 511] && 1).join('')
    })
    expect(found.sort()).toEqual(['000', '001', '010', '011', '100', '101', '110', '111'])
  })

  it('loses each one, keeps each one, and some at random, of more than it can try all of', async () => {
    const file = new LosingFile()
    const count = 13
    for (let index = 0; index < count; index++) await writeText(file, 'x', index)
    const kept = statesOf(file, { from: count }).map((state) => textOf(state, count))
    const each = Array.from({ length: count - 1 }, (_, index) => index)
    expect(kept).toContain('x'.repeat(count))
    for (const index of each) expect(kept).toContain(`${'x'.repeat(index)}-${'x'.repeat(count - 1 - index)}`)
    const again = statesOf(file, { from: count }).map((state) => textOf(state, count))
    expect(again, `seed ${seed}`).toEqual(kept)
  })

  it('gives the next process all of it after a kill, and still loses what was not synced', async () => {
    const file = new LosingFile()
    await writeText(file, 'a')
    await writeText(file, 'b', 1)
    const next = file.killedAfter(1)
    const seen = new Uint8Array(2)
    await next.read(seen, 0)
    expect([...seen]).toEqual([97, 0])
    expect(statesOf(next).map((state) => textOf(state, 1))).toContain('-')
    await next.sync()
    expect(statesOf(next, { from: 2 }).map((state) => textOf(state, 1))).toEqual(['a'])
  })
})

describe('a counter with a journal on the losing file', () => {
  it('is right after every crash', async () => {
    expect(wrongCounts(await counted({})), `seed ${seed}`).toEqual([])
  })

  it('is found wrong without its syncs, or without either of them', async () => {
    expect(wrongCounts(await counted({ fateOfSync: () => 'ignored' })).length).toBeGreaterThan(0)
    for (const parity of [0, 1]) {
      let syncs = 0
      const ignored: LosingFileOptions = {
        fateOfSync: (pending: readonly Change[]) =>
          pending.length > 0 && syncs++ % 2 === parity ? 'ignored' : 'works',
      }
      expect(wrongCounts(await counted(ignored)).length, `sync ${parity}, seed ${seed}`).toBeGreaterThan(0)
    }
  })

  it('is right when any sync fails and it stops, and found wrong when it trusts the next sync', async () => {
    let trusted = 0
    for (let position = 0; position < 8; position++) {
      expect(wrongCounts(await counted(nthSync(position, 'fails'))), `seed ${seed}`).toEqual([])
      trusted += wrongCounts(await counted(nthSync(position, 'fails'), { trustsNextSync: true })).length
    }
    expect(trusted, `seed ${seed}`).toBeGreaterThan(0)
  })
})

describe('answers by what was read', () => {
  /** A content with these bytes; zeros up to its length. */
  function contentWith(bytes: Record<number, string>, lengthBytes = 2048): FileContent {
    const content = new FileContent()
    for (const [offsetBytes, text] of Object.entries(bytes))
      content.write(Buffer.from(text), Number(offsetBytes))
    content.truncate(lengthBytes)
    return content
  }

  /** The first byte, and that at 1024 when the first is `a`; with how many bytes there were. */
  async function textIn(file: LosingFile): Promise<string> {
    const bytes = Buffer.alloc(2)
    const readBytes = await file.read(bytes.subarray(0, 1), 0)
    const more = bytes[0] === 97 ? await file.read(bytes.subarray(1), 1024) : 0
    return `${bytes.toString().slice(0, readBytes + more)} of ${readBytes + more}`
  }

  async function countIn(file: LosingFile): Promise<number | undefined> {
    const content = new FileContent()
    for (const offsetBytes of [0, 4096]) {
      const bytes = new Uint8Array(1024)
      await file.read(bytes, offsetBytes)
      content.write(bytes, offsetBytes)
    }
    return recoveredCount(content)
  }

  it('are those of each content by itself, the wrong ones included', async () => {
    const file = await counted({ fateOfSync: () => 'ignored' })
    const answers = new ReadTree(countIn)
    let states = 0
    for (const { content, describe } of crashStates(file.start, file.log, { seed })) {
      states++
      expect(await answers.answerOf(content), `seed ${seed}, ${describe()}`).toBe(recoveredCount(content))
    }
    expect(answers.answers).toBeLessThan(states / 4)
  })

  it('are asked for again where a byte that is read differs or is not there, and only there', async () => {
    const answers = new ReadTree(textIn)
    expect(await answers.answerOf(contentWith({ 0: 'a', 1024: 'b' }))).toBe('ab of 2')
    expect(await answers.answerOf(contentWith({ 0: 'a', 512: 'x', 1024: 'b', 1536: 'x' }))).toBe('ab of 2')
    expect(answers.answers).toBe(1)
    expect(await answers.answerOf(contentWith({ 0: 'a', 1024: 'c' }))).toBe('ac of 2')
    expect(await answers.answerOf(contentWith({ 0: 'a' }))).toBe('a\0 of 2')
    expect(await answers.answerOf(contentWith({ 0: 'a' }, 1024))).toBe('a of 1')
    expect(await answers.answerOf(contentWith({ 0: 'd', 1024: 'b' }))).toBe('d of 1')
    expect(answers.answers).toBe(5)
    expect(await answers.answerOf(contentWith({ 0: 'd', 1024: 'c' }, 1536))).toBe('d of 1')
    expect(answers.answers).toBe(5)
  })

  it('are refused to a question that reads something else after the same bytes', async () => {
    let offsetBytes = 0
    const answers = new ReadTree(async (file) => {
      await file.read(new Uint8Array(1), 0)
      await file.read(new Uint8Array(1), offsetBytes)
    })
    offsetBytes = 512
    await answers.answerOf(contentWith({ 512: 'a' }))
    for (offsetBytes of [0, 1024])
      await expect(answers.answerOf(contentWith({ 512: 'b' }))).rejects.toThrow('other places were read')
  })
})
