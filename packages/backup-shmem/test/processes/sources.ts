import { registerHooks } from 'node:module'

// Lets a child process run the unbuilt sources, as the test runner does.
registerHooks({
  resolve(specifier, context, next) {
    const match = /^@spillway\/([a-z-]+)$/.exec(specifier)
    if (match === null) return next(specifier, context)
    return next(new URL(`../../../${match[1]}/src/index.ts`, import.meta.url).href, context)
  },
})
