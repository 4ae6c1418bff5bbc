/**
 * Before the very first release: writes what all changesets say into the changelogs, under the versions that the manifests have,
 * and removes the changesets. `changeset version` would raise the versions, and the first release is to be what they say.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { publishedFolders } from './published-folders.ts'

const root = join(import.meta.dirname, '..')
const folder = join(root, '.changeset')
const changes = readdirSync(folder)
  .filter((name) => name.endsWith('.md') && name !== 'README.md')
  .map((name) => {
    const [, heading, text] = readFileSync(join(folder, name), 'utf8').split(/^---$/m)
    const packages = [...heading.matchAll(/^'([^']+)':/gm)].map((match) => match[1])
    return { name, packages, text: text.trim().replaceAll('\n', '\n  ') }
  })

for (const directory of publishedFolders) {
  const { name, version } = JSON.parse(readFileSync(join(root, directory, 'package.json'), 'utf8'))
  const file = join(root, directory, 'CHANGELOG.md')
  if (readFileSync(file, 'utf8').includes('\n## ')) throw new Error(`${file} has a release already`)
  const lines = changes.filter(({ packages }) => packages.includes(name)).map(({ text }) => `- ${text}`)
  writeFileSync(file, `# ${name}\n\n## ${version}\n\n${lines.join('\n')}\n`)
}
for (const { name } of changes) rmSync(join(folder, name))
console.log(`${changes.length} changesets are in the changelogs now`)
