import identity from './scripts/identity.json' with { type: 'json' }

/** The site: the API of each package under its own name, and the guides. `npm run docs` writes it to `docs/api`. */
export default {
  name: 'Spillway',
  entryPoints: ['packages/*/src/index.ts', 'packages/core/src/conformance/index.ts'],
  tsconfig: 'tsconfig.json',
  out: 'docs/api',
  readme: 'README.md',
  projectDocuments: [
    'docs/guides/*.md',
    'docs/*.md',
    'docs/decisions/*.md',
    'examples/**/README.md',
    'packages/*/README.md',
  ],
  alwaysCreateEntryPointModule: true,
  searchInDocuments: true,
  highlightLanguages: ['dockerfile', 'js', 'sh', 'ts'],
  navigation: { includeCategories: false, includeGroups: false },
  basePath: '.',
  disableGit: true,
  sourceLinkTemplate: `https://github.com/${identity.repository}/blob/main/{path}#L{line}`,
  treatWarningsAsErrors: true,
  excludePrivate: true,
  excludeInternal: true,
}
