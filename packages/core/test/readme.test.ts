import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'

it('the example of the README runs and prints what it says', async () => {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
  const example = /```js\n([^`]*)```/.exec(readme)?.[1] ?? ''
  const program = example.replace(
    "'@spillway/core'",
    JSON.stringify(new URL('../src/index.ts', import.meta.url).href),
  )
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program])
  expect(stdout.trim()).toBe(/console\.log\(.*\/\/ (.*)/.exec(example)?.[1])
})
