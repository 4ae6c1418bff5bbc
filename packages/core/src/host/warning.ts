/** Warns through `process.emitWarning`, where there is a process. `detail` is printed below, for example a stack. */
export function warn(code: string, message: string, detail?: string): void {
  const host = (
    globalThis as {
      process?: {
        emitWarning?: (message: string, options: { type: string; code: string; detail?: string }) => void
      }
    }
  ).process
  const options = { type: 'SpillwayWarning', code }
  host?.emitWarning?.(message, detail === undefined ? options : { ...options, detail })
}
