import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')

/** Folders of what is published, from the root: all packages, and the bench. */
export const publishedFolders: readonly string[] = [
  ...readdirSync(join(root, 'packages'))
    .sort()
    .map((name) => `packages/${name}`),
  'apps/bench',
]
