import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import identity from '../identity.json' with { type: 'json' }

const run = promisify(execFile)
const verdaccioVersion = '6.10.4'
const longestStartMs = 60_000

/** An npm registry on this machine that has the packages of our scope and no others. */
export interface Registry extends AsyncDisposable {
  readonly url: string
  /** The line of an `.npmrc` that takes the packages of our scope from here and all others from where they always come from. */
  readonly npmrc: string
  /** Publishes the package in a folder, as docs/releasing.md says for the very first time: provenance needs a workflow. */
  publish(folder: string): Promise<void>
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  return port
}

async function answers(url: string): Promise<boolean> {
  return fetch(`${url}-/ping`).then(
    ({ ok }) => ok,
    () => false,
  )
}

/** Installs verdaccio from npm into a folder and starts it there. */
export async function startRegistry(folder: string): Promise<Registry> {
  mkdirSync(folder)
  // The audit of verdaccio asks for node-fetch by a tag that mirrors do not carry.
  writeFileSync(join(folder, 'package.json'), '{"private":true,"overrides":{"node-fetch":"2.7.0"}}')
  const wanted = ['--no-audit', '--no-fund', '--ignore-scripts', `verdaccio@${verdaccioVersion}`]
  await run('npm', ['install', ...wanted], { cwd: folder })
  const settings = {
    storage: join(folder, 'storage'),
    web: { enable: false },
    auth: { htpasswd: { file: join(folder, 'users') } },
    uplinks: {},
    packages: { [`${identity.scope}/*`]: { access: '$all', publish: '$anonymous' } },
    log: { type: 'stdout', format: 'pretty', level: 'error' },
  }
  writeFileSync(join(folder, 'config.yaml'), JSON.stringify(settings))
  const port = await freePort()
  const program = join(folder, 'node_modules/verdaccio/bin/verdaccio')
  const listen = ['--config', join(folder, 'config.yaml'), '--listen', `127.0.0.1:${port}`]
  const server = spawn(process.execPath, [program, ...listen], { stdio: ['ignore', 'ignore', 'inherit'] })
  const url = `http://127.0.0.1:${port}/`
  const startedMs = Date.now()
  while (!(await answers(url))) {
    if (server.exitCode !== null || Date.now() - startedMs > longestStartMs) {
      server.kill()
      throw new Error('the registry does not start')
    }
    await sleep(100)
  }
  const npmrc = `${identity.scope}:registry=${url}`
  return {
    url,
    npmrc,
    async publish(package_) {
      // npm wants some token before it asks the registry; this one lets anybody publish.
      const flags = [
        '--provenance=false',
        `--${npmrc}`,
        `--registry=${url}`,
        `--//127.0.0.1:${port}/:_authToken=any`,
      ]
      await run('npm', ['publish', ...flags], { cwd: package_ })
    },
    async [Symbol.asyncDispose]() {
      const ended = once(server, 'exit')
      server.kill()
      await ended
    },
  }
}
