/**
 * Runs backup-s3, as built, with the oldest SDK of its peer range: backups, single pages, whole segments, deletions, with
 * either request handler and either way of page requests. The newest is what all tests run with. Needs `npm run build`, and
 * the registry.
 *
 *   node scripts/check-oldest-sdk.ts [VERSION…]
 *
 * Other versions may be given, and with `S3_ENDPOINT` it runs against the service that the environment names, as tests do:
 * `scripts/services/with.sh swift node scripts/check-oldest-sdk.ts 3.917.0 latest`.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { s3Target } from '@spillway/test-s3-server'

const root = join(import.meta.dirname, '..')
const packageFile = readFileSync(join(root, 'packages/backup-s3/package.json'), 'utf8')
const { peerDependencies } = JSON.parse(packageFile) as { peerDependencies: Record<string, string> }
const oldest = peerDependencies['@aws-sdk/client-s3'].replace('^', '')
const versions = process.argv.length > 2 ? process.argv.slice(2) : [oldest]

const program = `
import { S3Client } from '@aws-sdk/client-s3'
import { pageHttpHandler, S3Backup } from '@spillway/backup-s3'
const { clientConfig, bucket, prefix, conditionalWrites } = JSON.parse(process.argv[2])
const pageBytes = 4096
const content = Buffer.from(Array.from({ length: 1024 * pageBytes }, (_, at) => (at >> 12) ^ at))

async function run(handler, pageRequests) {
  const client = new S3Client({ ...clientConfig, ...handler })
  const options = { client, bucket, prefix, pageRequests, mergeGapBytes: 0, hedgeShare: 0, segmentBytes: 64 * pageBytes }
  const backup = await S3Backup.open(conditionalWrites ? options : { ...options, conditionalWrites })
  const { handles, error } = await backup.backupPages([content])
  if (error) throw error
  const copy = async (runs, expected) => {
    const memory = Buffer.alloc(expected.length)
    const result = await backup.copyPages(runs, [memory])
    if (result.error || !memory.equals(expected)) throw result.error ?? new Error('other bytes')
  }
  const pages = [3, 5, 900, 17]
  for (const page of pages) {
    const [first] = handles.flatMap(({ first, count }) => Array.from({ length: count }, (_, at) => first + at)).slice(page)
    await copy([{ first, count: 1 }], content.subarray(page * pageBytes, (page + 1) * pageBytes))
  }
  await copy(handles, content)
  const started = performance.now()
  await backup.drop(handles)
  await backup.close()
  const deletedMs = performance.now() - started
  const { way, reason, direct, throughSdk } = backup.stats().pageRequests
  if (deletedMs > 4000) throw new Error('deleting took ' + deletedMs + ' ms')
  if (way !== (pageRequests === 'sdk' ? 'sdk' : 'direct') || (way === 'direct') !== direct > 0)
    throw new Error('GETs of pages went the way ' + way + ': ' + reason)
  client.destroy()
  return direct + ' direct, ' + throughSdk + ' through the SDK, deleted in ' + Math.round(deletedMs) + ' ms'
}

let failures = 0
for (const [name, handler] of [['pageHttpHandler()', { requestHandler: pageHttpHandler() }], ['the SDK handler', {}]]) {
  for (const way of ['auto', 'sdk']) {
    const result = await run(handler, way).catch((error) => (failures++, error.stack))
    console.log('  ' + name + ', ' + way + ': ' + result)
  }
}
process.exitCode = failures === 0 ? 0 : 1
`

function install(version: string, directory: string): string {
  writeFileSync(join(directory, 'package.json'), '{ "private": true, "type": "module" }')
  const sdk = ['install', '--no-audit', '--no-fund', `@aws-sdk/client-s3@${version}`]
  execFileSync('npm', sdk, { cwd: directory, stdio: 'inherit' })
  for (const name of ['core', 'backup-s3']) {
    const target = join(directory, 'node_modules/@spillway', name)
    mkdirSync(target, { recursive: true })
    for (const part of ['dist', 'package.json']) {
      cpSync(join(root, 'packages', name, part), join(target, part), { recursive: true })
    }
  }
  writeFileSync(join(directory, 'program.js'), program)
  const installed = join(directory, 'node_modules/@aws-sdk/client-s3/package.json')
  return (JSON.parse(readFileSync(installed, 'utf8')) as { version: string }).version
}

await using target = await s3Target()
const { clientConfig, bucket, conditionalWrites } = target
for (const version of versions) {
  const directory = mkdtempSync(join(tmpdir(), 'spillway-sdk-'))
  try {
    const installed = install(version, directory)
    console.log(`backup-s3 with @aws-sdk/client-s3 ${installed} on ${target.endpoint}:`)
    const order = JSON.stringify({ clientConfig, bucket, conditionalWrites, prefix: target.prefix() })
    const options = { cwd: directory, stdio: 'inherit', timeout: 300_000 } as const
    execFileSync(process.execPath, ['program.js', order], options)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
