import { equal, ok } from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { available, createMemfd, Mapping, systemPageBytes } from '@spillway/native'

const { available: works, reason, ioUring } = available()
ok(works, reason)
const pageBytes = systemPageBytes()
const memory = Mapping.anonymous(4 * pageBytes)
const view = memory.view(0, 4 * pageBytes)
view.fill(9)
memory.giveBack(0, pageBytes)
equal(view[0], 0)
equal(view[pageBytes], 9)
memory.close()
const memfd = createMemfd('install-check')
// Deno closes no descriptor that it did not open; this one ends with the process.
if (!('Deno' in globalThis)) closeSync(memfd)
console.log(`mapped memory, io_uring ${ioUring ? 'works' : 'is not to be had'}`)
