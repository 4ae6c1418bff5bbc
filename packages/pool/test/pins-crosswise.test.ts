import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

/** Runs a program of `children` to its end. */
function ended(name: string, ...argv: string[]): Promise<{ code: unknown; output: string }> {
  const script = fileURLToPath(new URL(`children/${name}`, import.meta.url))
  return new Promise((resolve) => {
    execFile(process.execPath, [script, ...argv], (failure, stdout, stderr) => {
      resolve({ code: failure?.code ?? 0, output: stdout + stderr })
    })
  })
}

it('tasks that pin crosswise end their process with an error that names who holds what, not in silence [T57]', async () => {
  const { code, output } = await ended('pins-crosswise.ts')
  expect(output).toContain('began')
  expect(output).not.toContain('both ended')
  expect(code).toBe(1)
  expect(output).toContain('ENOMEM')
  expect(output).toContain('SPILLWAY_WAITING_FOR_PINS')
  expect(output).toMatch(/buffer left \(1 pins\), buffer right \(1 pins\)/)
})

it('a task that goes on after it was refused and waits again ends its process with an error, too [T57]', async () => {
  const { code, output } = await ended('pins-never-released.ts', 'again')
  expect(output).toContain('refused: ENOMEM')
  expect(output).not.toContain('ended')
  expect(code).toBe(1)
  expect(output).toMatch(/buffer held \(1 pins\)/)
})

it('a save that waits for a pin that nobody can release ends its process with an error that names the pin [T57]', async () => {
  const { code, output } = await ended('pins-never-released.ts', 'save')
  expect(output).not.toContain('ended')
  expect(code).toBe(1)
  expect(output).toContain('EBUSY')
  expect(output).toContain('buffer held is pinned to be written to: bytes 4096 to 8192')
})
