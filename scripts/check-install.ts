/**
 * Publishes all packages to a registry on this machine, then does what their READMEs say as a stranger would: installs each by name
 * into an empty project, with npm, Bun and Deno, and runs the program of its README there on every runtime that is supported. So a
 * missing file, a forgotten dependency or an import that only works inside this repository is found before a user finds it.
 *
 * A project called `together` has all packages. There TypeScript compiles the programs without settings, and the next release
 * replaces the first.
 *
 * From a project with the bench a backend of one's own is conformed and measured, as its README says.
 *
 *   check-install.ts [package … | bench]     default: all
 *
 * Provenance, trusted publishing and the real registry cannot be tried here.
 */
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { startServer } from '../packages/test-s3-server/src/index.ts'
import { type DocumentProgram, missingPrint, namesToInstall, programsOf } from './documents/programs.ts'
import identity from './identity.json' with { type: 'json' }
import { benchSteps, conformBackend, measureBackend } from './install/bench.ts'
import { bun, deno, makeProject, npm, type PackageManager, runIn } from './install/projects.ts'
import { type Registry, startRegistry } from './install/registry.ts'
import { installBun, installDeno, installNode } from './runtimes/installed.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const nodeMajors = ['22', '24', '26']
const compilers = ['5.9', '6', '7']
const packages = readdirSync(join(root, 'packages')).sort()
const together = 'together'
const bench = 'bench'
const scratch = mkdtempSync(join(tmpdir(), 'spillway-install-'))
const nameOf = (directory: string) => `${identity.scope}/${directory}`
let failures = 0

async function check(name: string, action: () => Promise<string>): Promise<void> {
  const started = performance.now()
  try {
    const said = await action()
    console.log(`ok    ${name}: ${said}, ${((performance.now() - started) / 1000).toFixed(1)} s`)
  } catch (failure) {
    const { message, stdout = '', stderr = '' } = failure as Error & { stdout?: string; stderr?: string }
    console.log(`FAIL  ${name}: ${message}\n${stdout}${stderr}`)
    failures++
  }
}

function readme(directory: string): string {
  return readFileSync(join(root, 'packages', directory, 'README.md'), 'utf8')
}

async function runProgram(program: DocumentProgram, output: Promise<string>): Promise<string> {
  const printed = await output
  const missing = missingPrint(program, printed)
  if (missing !== undefined)
    throw new Error(`the README says that it prints "${missing}"; it printed ${printed}`)
  return printed.replaceAll(/\s+/g, ' ').slice(0, 100)
}

async function checkPackage(
  directory: string,
  managers: readonly PackageManager[],
  registry: Registry,
): Promise<void> {
  const programs = programsOf(readme(directory))
  if (programs.length === 0) throw new Error(`${directory}: the README has no program`)
  for (const manager of managers) {
    const folder = join(scratch, `${directory}-${manager.name}`)
    const names = namesToInstall(readme(directory))
    await check(`${directory} by ${manager.name}`, async () => {
      await makeProject(folder, manager, names, registry)
      return `installed ${names.join(' ')}`
    })
    for (const program of programs) {
      writeFileSync(join(folder, 'program.mjs'), program.source)
      for (const runtime of manager.runtimes) {
        const output = () => runProgram(program, runIn(folder, runtime, 'program.mjs'))
        await check(`${directory} on ${runtime.name}, line ${program.line}`, output)
      }
    }
  }
}

/** All packages in one project: memory that is mapped spills to each medium, and the types of all fit together. */
async function checkTogether(managers: readonly PackageManager[], registry: Registry): Promise<void> {
  for (const manager of managers) {
    const folder = join(scratch, `${together}-${manager.name}`)
    await check(`${together} by ${manager.name}`, async () => {
      await makeProject(
        folder,
        manager,
        [...packages.map(nameOf), '@aws-sdk/client-s3', '@opentelemetry/api'],
        registry,
      )
      return 'installed'
    })
    cpSync(join(root, 'scripts/install/together.mjs'), join(folder, 'program.mjs'))
    for (const runtime of manager.runtimes) {
      await check(`${together} on ${runtime.name}`, () => runIn(folder, runtime, 'program.mjs'))
    }
  }
}

/** From an empty folder with the README of the bench alone: installs it, writes the backend over lmdb, conforms and measures it. */
async function checkBench(manager: PackageManager, registry: Registry): Promise<void> {
  const folder = join(scratch, 'bench')
  const { names, source } = benchSteps(readFileSync(join(root, 'apps/bench/README.md'), 'utf8'))
  await check(`bench by ${manager.name}`, async () => {
    await makeProject(folder, manager, names, registry)
    return `installed ${names.join(' ')}`
  })
  for (const runtime of manager.runtimes) {
    await check(`bench conforms a backend on ${runtime.name}`, () => conformBackend(folder, runtime, source))
    await check(`bench on ${runtime.name}`, () => measureBackend(folder, runtime))
  }
}

/** Compiles the programs of each README with each TypeScript that is supported, in a project that sets nothing but `module`. */
async function checkTypes(folder: string): Promise<void> {
  const wanted = compilers.map((version) => `typescript-${version}@npm:typescript@${version}`)
  await run('npm', ['install', '--no-audit', '--no-fund', '@types/node@22', ...wanted], { cwd: folder })
  const sources = packages.flatMap((directory) =>
    programsOf(readme(directory)).map(({ line, source }) => {
      const file = `${directory}-${line}.ts`
      writeFileSync(join(folder, file), source)
      return file
    }),
  )
  const settings = ['--noEmit', '--strict', '--module', 'nodenext', '--skipLibCheck', 'false']
  for (const version of compilers) {
    const compiler = join(folder, `node_modules/typescript-${version}/bin/tsc`)
    await check(`types with TypeScript ${version}`, async () => {
      await run(process.execPath, [compiler, ...settings, ...sources], { cwd: folder })
      return `${sources.length} programs`
    })
  }
}

/** A copy of all packages after a release in which only core had a minor change; their one version. */
async function makeNextRelease(copy: string): Promise<string> {
  mkdirSync(join(copy, '.changeset'), { recursive: true })
  writeFileSync(join(copy, 'package.json'), '{"name":"next","private":true,"workspaces":["packages/*"]}')
  writeFileSync(join(copy, 'package-lock.json'), '{}')
  cpSync(join(root, '.changeset/config.json'), join(copy, '.changeset/config.json'))
  writeFileSync(join(copy, '.changeset/next.md'), `---\n'${nameOf('core')}': minor\n---\n\nA new export.\n`)
  for (const directory of packages) {
    const isShipped = (path: string) => !/\/(?:node_modules|test)$/.test(path)
    const target = join(copy, 'packages', directory)
    cpSync(join(root, 'packages', directory), target, { recursive: true, filter: isShipped })
  }
  const author = ['-c', 'user.name=x', '-c', 'user.email=x@x']
  await run('git', ['init', '--quiet'], { cwd: copy })
  await run('git', ['add', '.changeset', 'package.json'], { cwd: copy })
  await run('git', [...author, 'commit', '--quiet', '--message', 'next'], { cwd: copy })
  await run(join(root, 'node_modules/.bin/changeset'), ['version'], { cwd: copy })
  const read = (path: string) => readFileSync(join(copy, 'packages', path), 'utf8')
  const versions = packages.map((name) => JSON.parse(read(`${name}/package.json`)).version as string)
  if (new Set(versions).size !== 1) throw new Error(`versions differ: ${versions.join(' ')}`)
  if (!/^- .*A new export\.$/m.test(read('core/CHANGELOG.md'))) {
    throw new Error('the changelog of core lacks the sentence of the changeset')
  }
  return versions[0]!
}

/** Publishes the next release and replaces the first one by it in a project, where no second copy of a package may stay. */
async function checkNextRelease(project: string, registry: Registry): Promise<string> {
  const copy = join(scratch, 'next')
  const version = await makeNextRelease(copy)
  for (const directory of packages) await registry.publish(join(copy, 'packages', directory))
  const latest = packages.map((directory) => `${nameOf(directory)}@latest`)
  await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-online', ...latest], { cwd: project })
  const { stdout } = await run('npm', ['query', `[name^="${identity.scope}/"]`], { cwd: project })
  const installed = JSON.parse(stdout) as { name: string; version: string }[]
  const wrong = installed.filter((found) => found.version !== version)
  if (installed.length !== packages.length || wrong.length > 0) {
    throw new Error(`installed are ${installed.map(({ name, version }) => `${name}@${version}`).join(' ')}`)
  }
  return `all packages have version ${version}`
}

async function installManagers(): Promise<PackageManager[]> {
  const [bunRuntime, denoRuntime, ...nodes] = await Promise.all([
    installBun(join(scratch, 'bun')),
    installDeno(join(scratch, 'deno')),
    ...nodeMajors.map((major) => installNode(join(scratch, `node-${major}`), major)),
  ])
  return [npm(nodes), bun(bunRuntime), deno(denoRuntime)]
}

async function checkAll(
  asked: readonly string[],
  registry: Registry,
  managers: readonly PackageManager[],
): Promise<void> {
  await using service = await startServer({ buckets: ['my-scratch'], region: 'eu-north-1' })
  Object.assign(process.env, {
    AWS_ENDPOINT_URL_S3: service.endpoint,
    AWS_ACCESS_KEY_ID: service.credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: service.credentials.secretAccessKey,
    // Caches of an earlier run may hold other packages of the same version.
    BUN_INSTALL_CACHE_DIR: join(scratch, 'cache-bun'),
    DENO_DIR: join(scratch, 'cache-deno'),
  })
  for (const directory of packages) await registry.publish(join(root, 'packages', directory))
  await registry.publish(join(root, 'apps/bench'))
  for (const directory of asked) {
    if (directory === bench) await checkBench(managers[0]!, registry)
    else await checkPackage(directory, managers, registry)
  }
  await checkTogether(managers, registry)
  const folder = join(scratch, `${together}-npm`)
  await checkTypes(folder)
  await check('the next release', () => checkNextRelease(folder, registry))
}

try {
  const [managers, started] = await Promise.all([installManagers(), startRegistry(join(scratch, 'registry'))])
  await using registry = started
  await checkAll(process.argv.length > 2 ? process.argv.slice(2) : [...packages, bench], registry, managers)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
process.exitCode = failures === 0 ? 0 : 1
