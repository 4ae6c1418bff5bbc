/** Text for HTML, and for attributes in double quotes. */
export function escapeText(text: unknown): string {
  return String(text).replace(
    /[&<>"]/g,
    (mark) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[mark]!,
  )
}

/** A chart under a title; nothing where there is no chart. The caption is HTML. */
export function figure(title: string, chart: string | undefined, caption: string): string {
  if (chart === undefined) return ''
  return `<h2>${escapeText(title)}</h2>\n<figure>${chart}<figcaption>${caption}</figcaption></figure>\n`
}

/** How good a value is; nothing where that is not judged. */
export type Tone = 'good' | 'warn' | 'bad'

/** A column of a table: all its values are in the unit that its title tells. */
export interface Column<Row> {
  readonly title: string
  readonly value: (row: Row) => string | number | undefined
  /** Digits behind the point, for columns of numbers, which are aligned to the right. */
  readonly digits?: number
  readonly tone?: (row: Row) => Tone | undefined
}

/** Rows as a table that becomes cards on a narrow screen, with a link to the same as CSV in a file `name`. */
export function dataTable<Row>(name: string, columns: readonly Column<Row>[], rows: readonly Row[]): string {
  if (rows.length === 0) return ''
  const heads = columns.map(
    ({ title, digits }) =>
      `<th role="columnheader" scope="col"${digits === undefined ? '' : ' class="number"'}>${escapeText(title)}</th>`,
  )
  const lines = rows.map(
    (row) => `<tr role="row">${columns.map((column) => cell(column, row)).join('')}</tr>`,
  )
  // The roles stay when the style makes cards of the rows.
  return (
    `<div class="scroll"><table role="table"><thead role="rowgroup"><tr role="row">${heads.join('')}</tr></thead>` +
    `<tbody role="rowgroup">\n${lines.join('\n')}\n</tbody></table></div>\n${csvLink(name, columns, rows)}`
  )
}

function cell<Row>({ title, value, digits, tone }: Column<Row>, row: Row): string {
  const classes = [digits === undefined ? '' : 'number', tone?.(row) ?? ''].filter(Boolean).join(' ')
  const attributes = `role="cell" data-label="${escapeText(title)}"${classes === '' ? '' : ` class="${classes}"`}`
  return `<td ${attributes}>${escapeText(cellText(value(row), digits))}</td>`
}

function cellText(value: string | number | undefined, digits: number | undefined): string {
  if (value === undefined || (typeof value === 'number' && !Number.isFinite(value))) return '–'
  return typeof value === 'number' && digits !== undefined ? value.toFixed(digits) : String(value)
}

function csvLink<Row>(name: string, columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const quoted = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  const lines = [
    columns.map(({ title }) => quoted(title)),
    ...rows.map((row) =>
      columns.map(({ value }) => {
        const given = value(row)
        return typeof given === 'number' && !Number.isFinite(given) ? '' : quoted(String(given ?? ''))
      }),
    ),
  ]
  const content = encodeURIComponent(`${lines.map((line) => line.join(',')).join('\r\n')}\r\n`)
  return `<p class="download"><a download="${escapeText(name)}.csv" href="data:text/csv;charset=utf-8,${content}">${escapeText(name)}.csv</a></p>\n`
}
