// compare.mjs REPORT KNOWN - whether exactly those tests failed that a file names, one a line; lines that begin with # are comments.
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'

const [report, known] = process.argv.slice(2)
const { testResults } = JSON.parse(readFileSync(report, 'utf8'))
const failed = new Set()
for (const { name, message, assertionResults } of testResults) {
  // Of what is before and after the tests of a file.
  if (message) failed.add(basename(name))
  for (const { status, fullName } of assertionResults) if (status === 'failed') failed.add(fullName)
}
const lines = readFileSync(known, 'utf8').split('\n')
const expected = new Set(lines.filter((line) => line !== '' && !line.startsWith('#')))
const unexpected = [...failed].filter((name) => !expected.has(name))
const passed = [...expected].filter((name) => !failed.has(name))
for (const name of unexpected) console.error(`fails, and is not known to: ${name}`)
for (const name of passed) console.error(`is known to fail, and does not: ${name}`)
if (testResults.length === 0) console.error('no test has run')
if (unexpected.length + passed.length > 0 || testResults.length === 0) process.exit(1)
console.error(`exactly the ${expected.size} failures that ${basename(known)} explains`)
