import { styleText } from 'node:util'
import { padText, terminalColumns, textWidth, wrapText } from './terminal.ts'

const columnGap = '  '
const cardIndent = '  '
const pairGap = '   '

/**
 * Rows under a head, in at most `columns`: as a table where it fits, else each row as a card. Columns from `firstRight` on are figures,
 * aligned to the right; those before them name the row, and are the title of its card. A cell may have several lines.
 */
export function textTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  firstRight: number,
  columns = terminalColumns(),
): string {
  const grid = gridOf(head, rows, firstRight)
  return Math.max(...grid.map(textWidth)) <= columns
    ? grid.join('\n')
    : cardsOf(head, rows, firstRight, columns).join('\n')
}

function gridOf(head: readonly string[], rows: readonly (readonly string[])[], firstRight: number): string[] {
  const cells = [head, ...rows].map((row) => row.map((cell) => cell.split('\n')))
  const widths = head.map((_, column) =>
    Math.max(...cells.map((row) => Math.max(...row[column].map(textWidth)))),
  )
  const lines = cells.map((row) => {
    const height = Math.max(...row.map((cell) => cell.length))
    return Array.from({ length: height }, (_, line) =>
      row
        .map((cell, column) =>
          padText(cell[line] ?? '', widths[column], column >= firstRight ? 'right' : 'left'),
        )
        .join(columnGap)
        .trimEnd(),
    )
  })
  const rule = widths.map((width) => '─'.repeat(width)).join(columnGap)
  return [...lines[0].map((line) => styleText('bold', line)), rule, ...lines.slice(1).flat()]
}

/** A title for each row and below it its figures behind their names, as many side by side as fit. */
function cardsOf(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  firstRight: number,
  columns: number,
): string[] {
  const inOneLine = (cell: string) => cell.split('\n').join(' ')
  const titleOf = (cells: readonly string[]) => cells.filter(Boolean).map(inOneLine).join(' · ')
  const titles = rows.map((row) => titleOf(row.slice(0, firstRight)))
  const pairs = rows.map((row) =>
    row.slice(firstRight).map((cell, column) => ({
      name: inOneLine(head[firstRight + column]),
      figure: inOneLine(cell),
    })),
  )
  const bodies = layPairs(pairs, columns - cardIndent.length)
  const heading = titleOf(head.slice(0, firstRight))
  return [
    styleText('bold', heading),
    '─'.repeat(Math.min(columns, textWidth(heading))),
    ...rows.flatMap((_, row) => [
      wrapText(styleText('bold', titles[row]), columns),
      ...bodies[row].map((line) => cardIndent + line),
    ]),
  ]
}

interface Pair {
  readonly name: string
  readonly figure: string
}

/** The lines of each card: pairs in columns that all cards share, as many side by side as `columns` allow. */
function layPairs(cards: readonly (readonly Pair[])[], columns: number): string[][] {
  const count = Math.max(0, ...cards.map((card) => card.length))
  for (let across = count; across > 1; across--) {
    const lines = layAcross(cards, across)
    if (lines.flat().every((line) => textWidth(line) <= columns)) return lines
  }
  return layAcross(cards, 1)
}

function layAcross(cards: readonly (readonly Pair[])[], across: number): string[][] {
  const widest = (place: number, part: keyof Pair) =>
    Math.max(
      0,
      ...cards.flatMap((card) =>
        card.flatMap((pair, at) => (at % across === place ? [textWidth(pair[part])] : [])),
      ),
    )
  const widths = Array.from(
    { length: across },
    (_, place) => [widest(place, 'name'), widest(place, 'figure')] as const,
  )
  return cards.map((card) => {
    const lines: string[] = []
    for (let first = 0; first < card.length; first += across) {
      const cells = card.slice(first, first + across).map(({ name, figure }, place) => {
        const [nameWidth, figureWidth] = widths[place]
        return `${styleText('dim', padText(name, nameWidth))}${columnGap}${padText(figure, figureWidth)}`
      })
      lines.push(cells.join(pairGap).trimEnd())
    }
    return lines
  })
}
