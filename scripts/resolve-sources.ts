/**
 * Lets a child process run the sources of the workspace as the tests do, without a build:
 *
 *   node --import ./scripts/resolve-sources.ts program.ts
 */
import { registerHooks } from 'node:module'

const packages = new URL('../packages/', import.meta.url)

registerHooks({
  resolve(specifier, context, nextResolve) {
    const match = /^@spillway\/([a-z0-9-]+)(\/conformance)?$/.exec(specifier)
    if (match === null) return nextResolve(specifier, context)
    const entry = match[2] === undefined ? 'index.ts' : 'conformance/index.ts'
    return { url: new URL(`${match[1]}/src/${entry}`, packages).href, shortCircuit: true }
  },
})
