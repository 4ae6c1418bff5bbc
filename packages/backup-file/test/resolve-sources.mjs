import { registerHooks } from 'node:module'

// Child processes of the tests run on the sources, as the tests do, so that nothing has to be built before.
registerHooks({
  resolve(specifier, context, next) {
    const name = /^@spillway\/([a-z0-9-]+)$/.exec(specifier)?.[1]
    if (name === undefined) return next(specifier, context)
    return next(new URL(`../../${name}/src/index.ts`, import.meta.url).href, context)
  },
})
