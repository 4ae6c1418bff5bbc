import { closeSync, openSync, writeSync } from 'node:fs'

/** Writes a CSV file of about so many bytes: sales, each to one of an eighth as many customers, at random. */
export function makeCsv(path: string, bytes: number): void {
  const rows = Math.ceil(bytes / 43)
  let state = 1 // of a linear congruential generator
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const file = openSync(path, 'w')
  let text = 'order,customer,day,amount\n'
  for (let row = 0; row < rows; row++) {
    const customer = String(random(Math.ceil(rows / 8))).padStart(8, '0')
    text += `${row},customer-${customer},2026-03-${10 + (row % 20)},${random(100_000)}\n`
    if (text.length < 2 ** 20 && row < rows - 1) continue
    writeSync(file, text)
    text = ''
  }
  closeSync(file)
}

if (import.meta.main) makeCsv(process.argv[2], Number(process.argv[3]))
