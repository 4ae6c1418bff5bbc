/**
 * Runs backup-s3, as built, with the oldest SDK of its peer range: backups, single pages, whole segments, deletions, with
 * either request handler. The newest is what all tests run with. Needs `npm run build`, and the registry.
 */
import { execFileSync, fork } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const packageFile = readFileSync(join(root, 'packages/backup-s3/package.json'), 'utf8')
const { peerDependencies } = JSON.parse(packageFile) as { peerDependencies: Record<string, string> }
const oldest = peerDependencies['@aws-sdk/client-s3'].replace('^', '')

const program = `
import { S3Client } from '@aws-sdk/client-s3'
import { pageHttpHandler, S3Backup } from '@spillway/backup-s3'
const credentials = { accessKeyId: 'test-access-key', secretAccessKey: 'test-secret-key' }
const config = { endpoint: process.argv[2], region: 'us-east-1', forcePathStyle: true, credentials }
for (const handler of [{ requestHandler: pageHttpHandler() }, {}]) {
  const client = new S3Client({ ...config, ...handler })
  const options = { client, bucket: 'test', prefix: 'oldest/', mergeGapBytes: 0, segmentBytes: 64 * 4096 }
  const backup = await S3Backup.open(options)
  const content = Buffer.from(Array.from({ length: 1024 * 4096 }, (_, at) => (at >> 12) ^ at))
  const { handles, error } = await backup.backupPages([content])
  if (error) throw error
  const copy = async (runs, expected) => {
    const memory = Buffer.alloc(expected.length)
    const result = await backup.copyPages(runs, [memory])
    if (result.error || !memory.equals(expected)) throw result.error ?? new Error('other bytes')
  }
  await copy([{ first: handles[0].first + 3, count: 1 }], content.subarray(3 * 4096, 4 * 4096))
  await copy([{ first: handles[0].first + 5, count: 1 }], content.subarray(5 * 4096, 6 * 4096))
  await copy(handles, content)
  const started = performance.now()
  await backup.drop(handles)
  await backup.close()
  const deletedMs = performance.now() - started
  const { way, reason, direct } = backup.stats().pageRequests
  if (deletedMs > 4000) throw new Error('deleting took ' + deletedMs + ' ms')
  if (way !== 'direct' || direct === 0) throw new Error('pages went through the SDK: ' + reason)
}
`

const directory = mkdtempSync(join(tmpdir(), 'spillway-oldest-sdk-'))
const server = fork(join(root, 'packages/test-s3-server/src/server/server.ts'), [], {
  execArgv: [],
  serialization: 'advanced',
  stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
})
try {
  writeFileSync(join(directory, 'package.json'), '{ "private": true, "type": "module" }')
  const install = ['install', '--no-audit', '--no-fund', `@aws-sdk/client-s3@${oldest}`]
  execFileSync('npm', install, { cwd: directory, stdio: 'inherit' })
  for (const name of ['core', 'backup-s3']) {
    const target = join(directory, 'node_modules/@spillway', name)
    mkdirSync(target, { recursive: true })
    for (const part of ['dist', 'package.json']) {
      cpSync(join(root, 'packages', name, part), join(target, part), { recursive: true })
    }
  }
  writeFileSync(join(directory, 'program.js'), program)
  const port = await new Promise<number>((resolve, reject) => {
    server.once('error', reject)
    server.once('message', (message: { ready: { port: number } }) => resolve(message.ready.port))
    server.send({ buckets: ['test'] })
  })
  const address = `http://127.0.0.1:${port}`
  execFileSync(process.execPath, ['program.js', address], {
    cwd: directory,
    stdio: 'inherit',
    timeout: 120_000,
  })
  console.log(`backup-s3 works with @aws-sdk/client-s3 ${oldest}`)
} finally {
  server.kill()
  rmSync(directory, { recursive: true })
}
