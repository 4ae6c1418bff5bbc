import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { groupBy } from '../src/group-by.ts'

const mebibyte = 2 ** 20

describe('group-by', () => {
  let directory: string
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'group-by-'))
  })
  afterAll(() => rm(directory, { recursive: true }))

  async function groupsOf(csv: string, limitBytes = 2 * mebibyte): Promise<Map<string, [number, number]>> {
    const path = join(directory, 'rows.csv')
    await writeFile(path, csv)
    const groups = new Map<string, [number, number]>()
    for await (const { key, count, sum } of groupBy(path, { key: 'name', value: 'amount', limitBytes })) {
      expect(groups.has(key), `${key} comes once`).toBe(false)
      groups.set(key, [count, sum])
    }
    return groups
  }

  it('gives what a Map in memory gives, of a file of five times the limit, and leaves no scratch file', async () => {
    const expected = new Map<string, [number, number]>()
    const lines = ['id,name,amount,note']
    for (let row = 0; row < 200_000; row++) {
      const name = `ключ ${(row * 7919) % 30_011}`
      const amount = ((row * 104_729) % 2_000) - 1_000 + (row % 4) / 4
      lines.push(`${row},${name},${amount},${'-'.repeat(row % 60)}`)
      const [count, sum] = expected.get(name) ?? [0, 0]
      expected.set(name, [count + 1, sum + amount])
    }
    expect(await groupsOf(lines.join('\n'))).toEqual(expected)
    expect(await readdir(directory)).toEqual(['rows.csv'])
  })

  it('groups rows of one key that are more than fit', async () => {
    const rows = 'the only one,2\n'.repeat(300_000)
    expect(await groupsOf(`name,amount\n${rows}`)).toEqual(new Map([['the only one', [300_000, 600_000]]]))
  })

  it('takes columns in any order, line ends of both kinds, empty lines, and no rows', async () => {
    const expected = new Map([
      ['a', [2, 1.5]],
      ['', [1, -3]],
    ])
    expect(await groupsOf('amount,other,name\r\n1,x,a\r\n\r\n0.5,,a\r\n-3,,\r\n')).toEqual(expected)
    expect(await groupsOf('amount,other,name\n1,x,a\n\n0.5,,a\n-3,,')).toEqual(expected)
    expect((await groupsOf('name,amount')).size).toBe(0)
  })

  it('refuses what it cannot group right: quotes, ragged rows, unknown columns, too little memory', async () => {
    await expect(groupsOf('name,amount\n"a,b",1\n')).rejects.toThrow(SyntaxError)
    await expect(groupsOf('name,amount\na,1,2\n')).rejects.toThrow('a row has 3 columns instead of 2')
    await expect(groupsOf('title,amount\na,1\n')).rejects.toThrow('title,amount')
    await expect(groupsOf(`name,amount\n${'a,1\n'.repeat(mebibyte)}`, mebibyte / 8)).rejects.toThrow(
      RangeError,
    )
  })
})
