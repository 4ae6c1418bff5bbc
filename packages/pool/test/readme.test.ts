import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'

/** Lets a program import the packages as users do, from their sources. */
const hooks = `import { registerHooks } from 'node:module'
registerHooks({
  resolve(specifier, context, next) {
    const [, name] = /^@spillway\\/([a-z0-9-]+)$/.exec(specifier) ?? []
    const packages = ${JSON.stringify(new URL('../../', import.meta.url).href)}
    return next(name === undefined ? specifier : packages + name + '/src/index.ts', context)
  },
})`

it('the examples of the README run, one after the other, and do what they say', async () => {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
  const examples = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, example]) => example)
  expect(examples).toHaveLength(2)
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--import',
    `data:text/javascript,${encodeURIComponent(hooks)}`,
    '--input-type=module',
    '--eval',
    examples.join('\n'),
  ])
  const lines = stdout.trim().split('\n')
  expect(lines[0]).toBe('hello')
  expect(lines[1]).toMatch(/^0 /)
  expect(lines.at(-2)).toMatch(/^\d+ 2048$/)
  expect(lines.at(-1)).toBe('a stream of bytes')
})
