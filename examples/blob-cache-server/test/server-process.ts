import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))

/** The example as its users start it, in a process of its own, on the sources instead of the built packages. */
export class ServerProcess implements AsyncDisposable {
  readonly url: string
  readonly #child: ChildProcess

  private constructor(child: ChildProcess, url: string) {
    this.#child = child
    this.url = url
  }

  static async start(
    limitMebibytes: number,
    capacityGibibytes: number,
    directory: string,
  ): Promise<ServerProcess> {
    const sources = path('../../../scripts/resolve-sources.ts')
    const options = [0, limitMebibytes, capacityGibibytes, directory].map(String)
    const child = spawn(process.execPath, ['--import', sources, path('../src/server.ts'), ...options], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    for await (const bytes of child.stdout!) {
      said += bytes
      const port = /port: (\d+)/.exec(said)?.[1]
      if (port !== undefined) return new ServerProcess(child, `http://127.0.0.1:${port}`)
    }
    throw new Error(`the server ended before it listened: ${said}`)
  }

  /** Asks it to end, and resolves to its exit code. */
  async end(): Promise<number | null> {
    if (this.#child.exitCode === null) {
      const exited = once(this.#child, 'exit')
      this.#child.kill('SIGTERM')
      await exited
    }
    return this.#child.exitCode
  }

  async figures(): Promise<{
    blobs: number
    usedBytes: number
    limitBytes: number
    residentBytes: number
    rss: number
  }> {
    return (await (await fetch(`${this.url}/`)).json()) as never
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end()
  }
}
