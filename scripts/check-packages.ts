/**
 * Holds every published package to the one template, then asks publint and attw about the tarball that npm would
 * publish; and all sources to the rules of source-rules.ts. Prints what is wrong and exits 1, or one line per package.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import identity from './identity.json' with { type: 'json' }
import { publishedFolders } from './published-folders.ts'
import { compareWithAllowance, sourceProblems } from './source-rules.ts'

const root = join(import.meta.dirname, '..')
const allowedDependencies: Record<string, readonly string[]> = {
  '@spillway/native': ['koffi'],
  '@spillway/backup-shmem': ['@spillway/native'],
  // A program, and nobody's dependency: it brings everything that it measures.
  '@spillway/bench': [
    '@aws-sdk/client-s3',
    '@smithy/node-http-handler',
    ...[
      'core',
      'native',
      'observe',
      'pool',
      'backup-compressed',
      'backup-encrypted',
      'backup-file',
      'backup-s3',
      'backup-shmem',
      'backup-tiered',
      'test-s3-server',
    ].map((name) => `@spillway/${name}`),
    ...['commander', 'koffi', 'pretty-bytes', 'simple-statistics'],
  ],
}
const maxReadmeLines = 200

function readLines(path: string): string[] {
  return readFileSync(path, 'utf8').split('\n')
}

/** What in this package differs from the template. */
function templateProblems(folder: string): string[] {
  const problems: string[] = []
  const expect = (holds: boolean, problem: string) => {
    if (!holds) problems.push(problem)
  }
  const name = basename(folder)
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  expect(manifest.name === `${identity.scope}/${name}`, `name is ${manifest.name}`)
  const url = `git+https://github.com/${identity.repository}.git`
  expect(manifest.repository?.url === url, `repository.url is not ${url}`)
  expect(manifest.type === 'module', 'type is not module')
  expect(manifest.license === 'MIT', 'license is not MIT')
  expect(manifest.sideEffects === false, 'sideEffects is not false')
  expect(manifest.engines?.node === '>=22.19', 'engines.node is not >=22.19')
  expect(manifest.publishConfig?.access === 'public', 'publishConfig.access is not public')
  expect(manifest.publishConfig?.provenance === true, 'publishConfig.provenance is not true')
  expect(manifest.repository?.directory === relative(root, folder), 'repository.directory is wrong')
  expect(typeof manifest.description === 'string', 'description is missing')
  expect(manifest.exports?.['./package.json'] === './package.json', 'exports lacks ./package.json')
  for (const [subpath, conditions] of Object.entries(manifest.exports ?? {})) {
    if (typeof conditions === 'string') continue
    const order = Object.keys(conditions as object).join(',')
    expect(order === 'types,import,default', `exports ${subpath} has the conditions ${order}`)
  }
  for (const entry of ['dist', 'src', 'CHANGELOG.md']) {
    expect(manifest.files?.includes(entry), `files lacks ${entry}`)
  }
  const allowed = allowedDependencies[manifest.name] ?? []
  for (const dependency of Object.keys(manifest.dependencies ?? {})) {
    expect(allowed.includes(dependency), `dependency ${dependency} is not in the list of justified ones`)
  }
  const readme = join(folder, 'README.md')
  expect(existsSync(readme), 'README.md is missing')
  if (existsSync(readme)) {
    expect(readLines(readme).length <= maxReadmeLines, `README.md is longer than ${maxReadmeLines} lines`)
  }
  expect(existsSync(join(folder, 'CHANGELOG.md')), 'CHANGELOG.md is missing')
  expect(existsSync(join(folder, 'src/index.ts')), 'src/index.ts is missing')
  expect(
    readFileSync(join(folder, 'tsup.config.ts'), 'utf8').includes('tsup.base'),
    'tsup.config.ts is not the shared one',
  )
  return problems
}

interface Packed {
  readonly filename: string
  /** Bytes of the tarball. */
  readonly size: number
  readonly files: readonly { readonly path: string }[]
}

/** The line of a README that says how large the package is and what it brings along. */
const statedSize = /^Packed: at most (\d+) kB\. Dependencies: (?:none|(\d+) \(([^)]+)\))\.$/m

/** What the tarball lacks, and whether it is what the README says. */
function contentProblems(folder: string, { size, files }: Packed): string[] {
  const problems: string[] = []
  const license = join(folder, 'LICENSE')
  const isSame = existsSync(license) && readFileSync(license).equals(readFileSync(join(root, 'LICENSE')))
  if (!isSame || !files.some(({ path }) => path === 'LICENSE')) problems.push('LICENSE is not in the tarball')
  // Types that name AsyncDisposable compile in a project of any TypeScript, whatever its libraries.
  const types = readFileSync(join(folder, 'dist/index.d.ts'), 'utf8')
  if (!types.startsWith('/// <reference lib="esnext.disposable" />')) {
    problems.push('dist/index.d.ts does not refer to the library esnext.disposable')
  }
  if (/^(import|export) .*from 'node:/m.test(types) && !types.includes('/// <reference types="node" />')) {
    problems.push('dist/index.d.ts names types of Node and does not refer to them')
  }
  const stated = statedSize.exec(readFileSync(join(folder, 'README.md'), 'utf8'))
  if (stated === null) {
    return [...problems, 'README.md lacks the line "Packed: at most … kB. Dependencies: …."']
  }
  const [, bound, count = '0', names = ''] = stated
  if (size > Number(bound) * 1000)
    problems.push(`packed ${size} bytes, more than the ${bound} kB of README.md`)
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const dependencies = Object.keys(manifest.dependencies ?? {})
  if (Number(count) !== dependencies.length || names !== dependencies.join(', ')) {
    problems.push(
      `README.md states the dependencies "${names}", package.json has "${dependencies.join(', ')}"`,
    )
  }
  return problems
}

/** Changesets that the release could not read. */
function changesetProblems(): string[] {
  const folder = join(root, '.changeset')
  const readable = /^---\n(?:'@spillway\/[a-z0-9-]+': (?:patch|minor|major)\n)+---\n\n\S/
  return readdirSync(folder)
    .filter((name) => name.endsWith('.md') && !readable.test(readFileSync(join(folder, name), 'utf8')))
    .map((name) => `${name} does not begin with packages and their kind of change`)
}

/** Workspaces that a command of the root would leave out, because they do not have its task. */
function taskProblems(): string[] {
  const folders = ['packages', 'apps', 'examples'].flatMap((group) =>
    readdirSync(join(root, group))
      .map((name) => `${group}/${name}`)
      .filter((folder) => existsSync(join(root, folder, 'package.json'))),
  )
  return folders.flatMap((folder) => {
    const { scripts } = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8'))
    const missing = ['lint', 'test', 'typecheck'].filter((task) => scripts?.[task] === undefined)
    return missing.map((task) => `${folder} has no task ${task}`)
  })
}

/** What publint and attw say of the packed tarball. */
function tarballProblems(folder: string): string[] {
  const scratch = mkdtempSync(join(tmpdir(), 'spillway-pack-'))
  const problems: string[] = []
  try {
    const packed = JSON.parse(
      execFileSync('npm', ['pack', '--json', '--pack-destination', scratch], {
        cwd: folder,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      }),
    )
    const tarball = join(scratch, packed[0].filename)
    problems.push(...contentProblems(folder, packed[0]))
    for (const [tool, args] of [
      ['publint', ['run', '--strict', tarball]],
      ['attw', [tarball, '--profile', 'esm-only', '--no-emoji']],
    ] as const) {
      try {
        execFileSync(join(root, 'node_modules/.bin', tool), args, {
          cwd: root,
          encoding: 'utf8',
          stdio: 'pipe',
        })
      } catch (failure) {
        const { stdout, stderr } = failure as { stdout: string; stderr: string }
        problems.push(`${tool}: ${stdout}${stderr}`)
      }
    }
  } finally {
    rmSync(scratch, { recursive: true })
  }
  return problems
}

/** What in the sources of all packages and programs breaks a rule, beyond what is known to. */
function ruleProblems(): string[] {
  const folders = ['packages', 'apps'].flatMap((group) =>
    readdirSync(join(root, group)).map((name) => join(root, group, name, 'src')),
  )
  const problems = folders.flatMap((folder) => sourceProblems(folder, root))
  const allowance = JSON.parse(readFileSync(join(root, 'scripts/source-allowance.json'), 'utf8'))
  const { worse, unneeded } = compareWithAllowance(problems, allowance)
  for (const key of unneeded) console.log(`note  take this off scripts/source-allowance.json: ${key}`)
  return worse
}

let failed = false
const report = (name: string, problems: readonly string[]) => {
  console.log(problems.length === 0 ? `ok    ${name}` : `FAIL  ${name}\n      ${problems.join('\n      ')}`)
  failed ||= problems.length > 0
}
report('rules for sources', ruleProblems())
report('changesets', changesetProblems())
report('tasks of workspaces', taskProblems())
for (const published of publishedFolders) {
  const folder = join(root, published)
  report(basename(folder), [...templateProblems(folder), ...tarballProblems(folder)])
}
process.exitCode = failed ? 1 : 0
