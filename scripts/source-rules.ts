/**
 * The rules for source files that a linter does not check: how long functions and files may be, how many positional
 * parameters a function may take, and that imports, those of types included, go one way.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import ts from 'typescript'

const maxFunctionLines = 60
const maxParameters = 4
/** A file of one idea may have so many. */
const maxFileLines = 500

/** A rule that is broken. */
export interface SourceProblem {
  /** File, function and rule: the same however far over the cap it is. */
  readonly key: string
  /** What was counted, in lines, parameters or files. */
  readonly count: number
}

/** What the sources below a folder break; paths in the keys begin at `root`. */
export function sourceProblems(folder: string, root: string): SourceProblem[] {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .sort()
    .map((name) => parse(resolve(folder, name)))
  const nameOfFile = (path: string) => relative(root, path)
  const problems = files.flatMap((file) => fileProblems(file, nameOfFile(file.fileName)))
  for (const circle of importCircles(files)) {
    const key = `files import each other: ${circle.map(nameOfFile).join(', ')}`
    problems.push({ key, count: circle.length })
  }
  return problems
}

/**
 * Compares problems with those that are known and allowed for the time being, by key and greatest count. Returns what is
 * worse than allowed, and what is allowed and not needed any more.
 */
export function compareWithAllowance(
  problems: readonly SourceProblem[],
  allowance: Readonly<Record<string, number>>,
): { worse: string[]; unneeded: string[] } {
  const found = new Map<string, number>()
  for (const { key, count } of problems) found.set(key, Math.max(count, found.get(key) ?? 0))
  const worse = [...found].filter(([key, count]) => count > (allowance[key] ?? 0))
  return {
    worse: worse.map(([key, count]) => `${key}: ${count}`),
    unneeded: Object.keys(allowance).filter((key) => !found.has(key)),
  }
}

function parse(path: string): ts.SourceFile {
  return ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true)
}

function fileProblems(file: ts.SourceFile, name: string): SourceProblem[] {
  const problems: SourceProblem[] = []
  const lines = lineAt(file, file.end)
  if (lines > maxFileLines) problems.push({ key: `${name} lines`, count: lines })
  const visit = (node: ts.Node): void => {
    if (ts.isFunctionLike(node)) problems.push(...functionProblems(node, file, name))
    ts.forEachChild(node, visit)
  }
  visit(file)
  return problems
}

/** Only functions with a body: those without one describe what others have made. */
function functionProblems(node: ts.SignatureDeclaration, file: ts.SourceFile, path: string): SourceProblem[] {
  if (!('body' in node) || node.body === undefined) return []
  const problems: SourceProblem[] = []
  const name = `${path} ${nameOf(node, file)}`
  const lines = lineAt(file, node.end) - lineAt(file, node.getStart(file)) + 1
  if (lines > maxFunctionLines) problems.push({ key: `${name} lines`, count: lines })
  const { length } = node.parameters
  if (length > maxParameters) problems.push({ key: `${name} parameters`, count: length })
  return problems
}

function lineAt(file: ts.SourceFile, position: number): number {
  return file.getLineAndCharacterOfPosition(position).line + 1
}

/** The name of a function, or of what it is assigned to, or else of the function around it. */
function nameOf(node: ts.Node, file: ts.SourceFile): string {
  if (ts.isConstructorDeclaration(node)) return `constructor of ${node.parent.name?.text ?? 'a class'}`
  const named = ts.isFunctionLike(node) ? node.name : undefined
  if (named !== undefined) return named.getText(file)
  const { parent } = node
  if (ts.isVariableDeclaration(parent) || ts.isPropertyAssignment(parent)) return parent.name.getText(file)
  for (let around: ts.Node = parent; !ts.isSourceFile(around); around = around.parent) {
    if (ts.isFunctionLike(around)) return `a function in ${nameOf(around, file)}`
  }
  return 'a function'
}

/** Groups of files of which each can be reached from each through imports. */
function importCircles(files: readonly ts.SourceFile[]): string[][] {
  const known = new Set(files.map((file) => file.fileName))
  const imports = new Map<string, string[]>()
  for (const file of files)
    imports.set(
      file.fileName,
      importsOf(file).filter((path) => known.has(path)),
    )
  const reached = new Map([...known].map((path) => [path, reachableFrom(path, imports)] as const))
  const circles: string[][] = []
  const seen = new Set<string>()
  for (const [path, others] of reached) {
    if (seen.has(path) || !others.has(path)) continue
    const circle = [...others].filter((other) => reached.get(other)?.has(path)).sort()
    for (const other of circle) seen.add(other)
    circles.push(circle)
  }
  return circles
}

function reachableFrom(path: string, imports: ReadonlyMap<string, readonly string[]>): Set<string> {
  const reached = new Set<string>()
  const toVisit = [...(imports.get(path) ?? [])]
  for (let next = toVisit.pop(); next !== undefined; next = toVisit.pop()) {
    if (reached.has(next)) continue
    reached.add(next)
    toVisit.push(...(imports.get(next) ?? []))
  }
  return reached
}

/** The files beside it that a file imports or passes on, whether it needs their values or their types. */
function importsOf(file: ts.SourceFile): string[] {
  const found: string[] = []
  const visit = (node: ts.Node): void => {
    const named = moduleNamedBy(node)
    if (named !== undefined && ts.isStringLiteral(named) && named.text.startsWith('.')) {
      found.push(join(dirname(file.fileName), named.text))
    }
    ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

/** What `import … from`, `export … from`, `import()` and `import().Type` name. */
function moduleNamedBy(node: ts.Node): ts.Node | undefined {
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return node.moduleSpecifier
  if (ts.isCallExpression(node)) {
    return node.expression.kind === ts.SyntaxKind.ImportKeyword ? node.arguments[0] : undefined
  }
  if (!ts.isImportTypeNode(node) || !ts.isLiteralTypeNode(node.argument)) return undefined
  return node.argument.literal
}
