/**
 * Loads a build of the package once for each actor, so that no two share anything: each copy has modules of its own, told
 * apart by `?actor=` in their addresses.
 */
import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'
import type { BackupClass } from './history.ts'

const plainCommands = new URL('plain-commands.ts', import.meta.url).href
const sources = new URL('../../../', import.meta.url)

/** The actor for whom a module is loaded; modules of dependencies are shared. */
function actorOf(url: string | undefined): string | null {
  return url?.startsWith('file:') ? new URL(url).searchParams.get('actor') : null
}

/** Loads the sources, or the built checkout in `directory`, `copies` times. */
export async function loadCopies(copies: number, directory?: string): Promise<BackupClass[]> {
  const root = directory === undefined ? sources : new URL('packages/', pathToFileURL(`${directory}/`))
  const entry = (name: string) =>
    new URL(directory === undefined ? `${name}/src/index.ts` : `${name}/dist/index.js`, root).href
  registerHooks({
    resolve(specifier, context, next) {
      const actor = actorOf(context.parentURL)
      if (actor === null) return next(specifier, context)
      if (specifier === '@aws-sdk/client-s3') return { url: plainCommands, shortCircuit: true }
      const own = /^@spillway\/([a-z0-9-]+)$/.exec(specifier)
      if (own !== null) return { url: `${entry(own[1]!)}?actor=${actor}`, shortCircuit: true }
      const found = next(specifier, context)
      if (!specifier.startsWith('.') || !found.url.startsWith(root.href)) return found
      return { ...found, url: `${found.url.split('?')[0]}?actor=${actor}` }
    },
  })
  const loaded: BackupClass[] = []
  for (let actor = 0; actor < copies; actor++) {
    const { S3Backup } = await import(`${entry('backup-s3')}?actor=${actor}`)
    loaded.push(S3Backup as BackupClass)
  }
  return loaded
}
