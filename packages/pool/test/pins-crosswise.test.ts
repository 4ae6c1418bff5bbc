import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const script = fileURLToPath(new URL('children/pins-crosswise.ts', import.meta.url))

it('tasks that pin crosswise end their process with an error that names who holds what, not in silence [T57]', async () => {
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    execFile(process.execPath, [script], (failure, stdout, stderr) => {
      resolve({ code: failure?.code ?? 0, output: stdout + stderr })
    })
  })
  expect(output).toContain('began')
  expect(output).not.toContain('both ended')
  expect(code).toBe(1)
  expect(output).toContain('ENOMEM')
  expect(output).toContain('SPILLWAY_WAITING_FOR_PINS')
  expect(output).toMatch(/buffer left \(1 pins\), buffer right \(1 pins\)/)
})
