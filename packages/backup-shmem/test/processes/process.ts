import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Calls } from './worker.ts'

/** Runs Node in mounts of its own, where `SMALL_TMPFS` is a tmpfs of 6 MiB. Mounts go with the process. */
export const inSmallTmpfs = fileURLToPath(new URL('in-small-tmpfs.sh', import.meta.url))

/** Runs Node as process 1 of a process namespace of its own, as in a container. */
export const inProcessNamespace = fileURLToPath(new URL('in-process-namespace.sh', import.meta.url))

/** Whether this user may make process namespaces. */
export function canMakeProcessNamespace(): boolean {
  return spawnSync(inProcessNamespace, ['--version'], { env: namespaceEnvironment }).status === 0
}

export const namespaceEnvironment: Record<string, string> = {
  PATH: process.env['PATH'] ?? '',
  NODE: process.execPath,
}

/** Whether this user may make such mounts: root may, others where the system has user namespaces. */
export function canMountTmpfs(directory: string): boolean {
  return spawnSync(inSmallTmpfs, ['--version'], { env: mountEnvironment(directory) }).status === 0
}

export function mountEnvironment(directory: string): Record<string, string> {
  return { PATH: process.env['PATH'] ?? '', NODE: process.execPath, SMALL_TMPFS: directory }
}

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** A process of its own with a backup, or attached to one. */
export class TestProcess implements AsyncDisposable {
  readonly #child: ChildProcess

  /** `command`: what to run Node with, for example in other mounts. */
  constructor(command: string = process.execPath, environment: Record<string, string> = {}) {
    this.#child = fork(path('worker.ts'), {
      execPath: command,
      execArgv: [
        '--disable-warning=ExperimentalWarning',
        '--import',
        path('../../../../scripts/resolve-sources.ts'),
      ],
      env: { ...process.env, ...environment },
    })
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** Calls a function of `worker.ts`; rejects with the code of its error. */
  async call<Name extends keyof Calls>(
    name: Name,
    ...values: Parameters<Calls[Name]>
  ): Promise<Awaited<ReturnType<Calls[Name]>>> {
    const answered = once(this.#child, 'message')
    this.#child.send({ name, values })
    const [answer] = await answered
    if (answer.code !== undefined) throw Object.assign(new Error(answer.message), { code: answer.code })
    return answer.value
  }

  /** Ends it without a chance to clean up, and waits until it is gone. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const gone = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await gone
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill()
  }
}
