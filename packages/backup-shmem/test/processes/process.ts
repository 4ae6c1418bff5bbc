import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Calls } from './worker.ts'

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** A process of its own with a backup, or attached to one. */
export class TestProcess implements AsyncDisposable {
  readonly #child: ChildProcess = fork(path('worker.ts'), {
    execArgv: ['--disable-warning=ExperimentalWarning', '--import', path('sources.ts')],
  })

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
