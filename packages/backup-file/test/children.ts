import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

export interface Child {
  /** Ends it as nothing can prevent. */
  kill(): Promise<void>
  /** All it printed, once it has ended. */
  readonly output: Promise<string>
}

interface ChildOptions {
  /** When this process is root, which may read and write everything: let the modes of files count for it. */
  readonly heedsModes?: boolean
  /** Run it through this shell line, which ends in `"$@"`. */
  readonly shell?: string
}

/** Starts a script of `children/` on this Node, and resolves when it printed its first line. */
export async function runChild(script: string, argv: string[], options: ChildOptions = {}): Promise<Child> {
  const file = (name: string) => fileURLToPath(new URL(name, import.meta.url))
  const heeding = ['setpriv', '--bounding-set', '-dac_override,-dac_read_search']
  const command = [
    ...(options.heedsModes && process.getuid?.() === 0 ? heeding : []),
    process.execPath,
    '--import',
    file('../../../scripts/resolve-sources.ts'),
    file(`children/${script}`),
    ...argv,
  ]
  const [program, ...rest] =
    options.shell === undefined ? command : ['/bin/sh', '-c', options.shell, 'sh', ...command]
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (data: Buffer) => {
    text += data.toString()
  })
  const ended = once(child, 'close')
  await Promise.race([once(child.stdout, 'data'), ended])
  return {
    kill: async () => {
      child.kill('SIGKILL')
      await ended
    },
    output: ended.then(() => text),
  }
}
