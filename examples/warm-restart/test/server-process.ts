import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** The example as its users start it, in a process of its own. It needs the built packages. */
export class ServerProcess {
  readonly #child: ChildProcess
  readonly #exited: Promise<unknown>
  /** Rejects when the process ends before it listens. */
  readonly url: Promise<string>

  /** 4 MiB of memory for at most a GiB of blobs in the file at `path`. */
  constructor(path: string) {
    const program = fileURLToPath(new URL('../src/server.ts', import.meta.url))
    this.#child = spawn(process.execPath, [program, path, '0', '4', '1'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#exited = once(this.#child, 'exit')
    this.url = this.#listening()
    this.url.catch(() => {})
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  async #listening(): Promise<string> {
    let said = ''
    for await (const bytes of this.#child.stdout!) {
      said += bytes
      const port = /on port (\d+)/.exec(said)?.[1]
      if (port !== undefined) return `http://127.0.0.1:${port}`
    }
    throw new Error(`the server ended before it listened: ${said}`)
  }
}
