import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import site from './typedoc.config.js'

const { out: _out, projectDocuments: _documents, ...shared } = site
const entryPoints = ['src/index.ts', 'src/conformance/index.ts'].filter((path) => existsSync(path))

/** Checks what a package says of its own API, without writing anything: run in the folder of the package. */
export default {
  ...shared,
  entryPoints: entryPoints.map((path) => resolve(path)),
  tsconfig: resolve('tsconfig.check.json'),
  readme: 'none',
  // Types that a signature names and nobody needs to import are left out on the site, too.
  validation: { notExported: false },
  emit: 'none',
}
