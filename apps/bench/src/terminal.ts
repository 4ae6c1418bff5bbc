import { stripVTControlCharacters } from 'node:util'

/** What is taken for the width of an output that has none of its own: a file, a pipe. */
const usualColumns = 80

/** Characters that take two columns of a terminal. */
const wideCharacters =
  /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\p{Emoji_Presentation}]/gu

/** Columns of the terminal that `stream` writes to: what `COLUMNS` says, else what the terminal says. */
export function terminalColumns(stream: { readonly columns?: number } = process.stdout): number {
  for (const columns of [Number(process.env['COLUMNS']), stream.columns]) {
    if (columns !== undefined && Number.isSafeInteger(columns) && columns > 0) return columns
  }
  return usualColumns
}

/** Columns that `text` takes at a terminal; colours take none. */
export function textWidth(text: string): number {
  const plain = stripVTControlCharacters(text)
  return [...plain].length + (plain.match(wideCharacters)?.length ?? 0)
}

/** `text` filled up with spaces to `columns`. */
export function padText(text: string, columns: number, side: 'left' | 'right' = 'left'): string {
  const spaces = ' '.repeat(Math.max(0, columns - textWidth(text)))
  return side === 'left' ? text + spaces : spaces + text
}

/**
 * `text` in lines of at most `columns`, broken between words; the lines after the first are indented. A word that is longer than a
 * line stays whole, so that addresses and paths can be copied.
 */
export function wrapText(text: string, columns: number, indent = '  '): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line.trim() !== '' && textWidth(line) + 1 + textWidth(word) > columns) {
      lines.push(line)
      line = indent + word
    } else line = line === '' && lines.length === 0 ? word : `${line} ${word}`
  }
  return [...lines, line].join('\n')
}

/** `text` in lines of the width of the terminal; whole where nobody looks at a terminal, so that lines can be searched. */
export function wrapForTerminal(text: string): string {
  return process.stdout.isTTY ? wrapText(text, terminalColumns()) : text
}
