import { execFile } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type EmbeddedServer, startServer } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { missingPrint, namesToInstall, programsOf } from '../documents/programs.ts'

const root = join(import.meta.dirname, '../..')
/** Within the repository, so that programs that bundle find its packages. */
const folder = join(root, '.vitest', `documents-${process.pid}`)
let service: EmbeddedServer

beforeAll(async () => {
  mkdirSync(folder, { recursive: true })
  service = await startServer({ buckets: ['my-scratch'], region: 'eu-north-1' })
})
afterAll(async () => {
  await service.close()
  rmSync(folder, { recursive: true, force: true })
})

async function run(source: string, name: string): Promise<string> {
  const script = join(folder, `${name}.mts`)
  writeFileSync(script, source)
  const hooks = join(root, 'scripts/resolve-sources.ts')
  const { accessKeyId, secretAccessKey } = service.credentials
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', hooks, script], {
    cwd: folder,
    env: {
      ...process.env,
      NODE_OPTIONS: '',
      AWS_ENDPOINT_URL_S3: service.endpoint,
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
    },
  })
  return stdout
}

const guides = readdirSync(join(root, 'docs/guides')).filter((name) => name.endsWith('.md'))
const packages = readdirSync(join(root, 'packages'))
const documents = [
  'README.md',
  ...packages.map((name) => `packages/${name}/README.md`),
  ...guides.map((name) => `docs/guides/${name}`),
]

const withPrograms = documents
  .map((path) => ({ path, programs: programsOf(readFileSync(join(root, path), 'utf8')) }))
  .filter(({ programs }) => programs.length > 0)

describe.each(withPrograms)('$path', ({ path, programs }) => {
  it.each(programs)('the program on line $line runs and prints what it says', async (program) => {
    const output = await run(program.source, `${path.replaceAll('/', '-')}-${program.line}`)
    expect(missingPrint(program, output), output).toBeUndefined()
  })
})

describe('programs of documents', () => {
  const document = [
    'npm install one two # and three',
    '```ts',
    "import { a } from 'a'",
    'console.log(a) // prints 1',
    '```',
    'text',
    '```ts',
    'console.log(2) // prints 2',
    '```',
    '```sh',
    'rm',
    '```',
    '```js',
    '// A comment',
    "import 'b'",
    '```',
  ].join('\n')

  it('begin with an import and go on with each block that has none', () => {
    const programs = programsOf(document)
    expect(programs.map(({ line, prints }) => ({ line, prints }))).toEqual([
      { line: 3, prints: ['1', '2'] },
      { line: 14, prints: [] },
    ])
    expect(programs[0]!.source).toContain('console.log(2)')
  })

  it('have to print what they say, in that order', () => {
    const [program] = programsOf(document)
    expect(missingPrint(program!, 'x\n1\ny\n2\n')).toBeUndefined()
    expect(missingPrint(program!, '2\n1\n')).toBe('2')
    expect(missingPrint(program!, '12\n')).toBe('1')
  })

  it('name what has to be installed, without the remark behind it', () => {
    expect(namesToInstall(document)).toEqual(['one', 'two'])
  })
})
