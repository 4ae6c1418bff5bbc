/** A program in a document, to be run as it stands there. */
export interface DocumentProgram {
  /** The line of the document on which it begins, from 1. */
  readonly line: number
  readonly source: string
  /** What it says that it prints, in this order; it may print more. */
  readonly prints: readonly string[]
}

/**
 * The programs of a Markdown text: its blocks of `js` and `ts`. A block that begins with an import begins a program, and the others
 * go on with the last one. `// prints …` behind a call says what the program prints there.
 */
export function programsOf(markdown: string): DocumentProgram[] {
  const programs: DocumentProgram[] = []
  for (const match of markdown.matchAll(/^```(?:js|ts)\n([\s\S]*?)^```$/gm)) {
    const block = match[1]!
    const prints = [...block.matchAll(/\/\/ prints (.*)$/gm)].map(([, text]) => text!.trim())
    const last = programs.at(-1)
    if (last !== undefined && !/^(?:\/\/.*\n)*import /.test(block)) {
      const source = `${last.source}\n${block}`
      programs.splice(-1, 1, { ...last, source, prints: [...last.prints, ...prints] })
    } else {
      const line = markdown.slice(0, match.index).split('\n').length + 1
      programs.push({ line, source: block, prints })
    }
  }
  return programs
}

/** The first text that a program promised to print and did not, or printed too early; undefined when it kept its word. */
export function missingPrint(program: DocumentProgram, output: string): string | undefined {
  const lines = output.split('\n').map((line) => line.trim())
  let from = 0
  for (const text of program.prints) {
    const found = lines.indexOf(text, from)
    if (found < 0) return text
    from = found + 1
  }
  return undefined
}

/** The names that a document tells its reader to install with npm: the first such command. */
export function namesToInstall(markdown: string): string[] {
  const [, names = ''] = /^\s*npm install ([^#\n]*)/m.exec(markdown) ?? []
  return names.split(/\s+/).filter((name) => name !== '' && !name.startsWith('-'))
}
