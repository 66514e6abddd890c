/**
 * Jinja by @huggingface/jinja, with what Python does and that package does not: `{% generation %}` reports the text inside it, strip(chars)
 * takes its characters, what one pass through a loop sets is not seen by the next, and a loop that prints before it breaks is refused, because the
 * package would lose what it printed.
 */
import { Environment, Interpreter, Template, type JinjaNode as Node, type JinjaProgram } from './hf-jinja.js';
import { strftime } from './strftime.js';
import { PYTHON_WHITESPACE } from './unicode.js';

/** [begin, end) in UTF-16 units of the rendered text. */
export type Span = readonly [begin: number, end: number];

/** Halves of surrogate pairs: no well-formed text holds them alone. */
const BEGIN = '\udc00';
const END = '\udc01';
const MARK = '{% macro pith_generation() %}{{ pith_begin }}{{ caller() }}{{ pith_end }}{% endmacro %}';
const GENERATION = /(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})/g;
const STRIPS = new Set(['strip', 'lstrip', 'rstrip']);

export class JinjaTemplate {
  /** The template has `{% generation %}`. */
  readonly marksGeneration: boolean;
  readonly #program: JinjaProgram;

  /** Throws what the package throws on bad syntax. */
  constructor(source: string) {
    // a call block has the scope and the space control of transformers' tag, which is one
    const marked = source.replace(
      GENERATION,
      (_, open: string, end: string | undefined, close: string) => `${open}${end === undefined ? 'call pith_generation()' : 'endcall'}${close}`,
    );
    this.marksGeneration = marked !== source;
    this.#program = new Template(marked).parsed;
    rewriteStrips(this.#program);
    checkLoops(this.#program.body, false);
    partPasses(this.#program.body, { loops: 0 });
    this.#program.body.unshift(...new Template(MARK).parsed.body);
  }

  /** Strings among the values must be well-formed. Throws what the template raises. */
  render(values: Readonly<Record<string, unknown>>, now: Date): { text: string; spans: Span[] } {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...globals(now), ...values })) environment.set(name, value);
    return takeMarks(String(new Interpreter(environment).run(this.#program).value));
  }
}

function takeMarks(marked: string): { text: string; spans: Span[] } {
  const spans: Span[] = [];
  let [text, begin, at] = ['', 0, 0];
  for (const { 0: mark, index } of marked.matchAll(/(?<![\ud800-\udbff])[\udc00\udc01]/g)) {
    text += marked.slice(at, index);
    at = index + 1;
    if (mark === BEGIN) begin = text.length;
    else spans.push([begin, text.length]);
  }
  return { text: text + marked.slice(at), spans };
}

/** What the package declares for every template, which cannot be declared twice, with a clock that can be set. */
function globals(now: Date): Record<string, unknown> {
  const names = Object.fromEntries([['true', true] as const, ['false', false] as const, ['none', null] as const].flatMap(([n, v]) => [[n, v], [n[0]!.toUpperCase() + n.slice(1), v]])); // prettier-ignore
  return {
    ...names,
    raise_exception: (message: unknown): never => {
      throw new Error(String(message));
    },
    strftime_now: (format: string) => strftime(now, format),
    range: (start: number, stop?: number, step = 1): number[] => {
      const [from, to] = stop === undefined ? [0, start] : [start, stop];
      if (step === 0) throw new Error('range() step must not be zero');
      return Array.from({ length: Math.max(0, Math.ceil((to - from) / step)) }, (_, i) => from + i * step);
    },
    pith_begin: BEGIN,
    pith_end: END,
    pith_strip: (text: unknown, chars?: unknown) => stripRight(stripLeft(text, chars), chars),
    pith_lstrip: stripLeft,
    pith_rstrip: stripRight,
  };
}

/** Python's whitespace: str.isspace(). */
const PYTHON_SPACE = new RegExp(`[${PYTHON_WHITESPACE}]`, 'u');
const isSpace = (c: string): boolean => PYTHON_SPACE.test(c);

function stripped(text: unknown, chars: unknown): { characters: string[]; drops: (c: string) => boolean } {
  if (typeof text !== 'string') throw new Error('strip() of what is no text');
  if (chars !== undefined && chars !== null && typeof chars !== 'string') throw new Error('strip() takes a text');
  const set = typeof chars === 'string' ? new Set(chars) : undefined;
  return { characters: Array.from(text), drops: set === undefined ? isSpace : (c) => set.has(c) };
}

function stripLeft(text: unknown, chars: unknown): string {
  const { characters, drops } = stripped(text, chars);
  const begin = characters.findIndex((c) => !drops(c));
  return begin < 0 ? '' : characters.slice(begin).join('');
}

function stripRight(text: unknown, chars: unknown): string {
  const { characters, drops } = stripped(text, chars);
  return characters.slice(0, characters.findLastIndex((c) => !drops(c)) + 1).join('');
}

/** `x.lstrip(a)` -> `pith_lstrip(x, a)`, everywhere in the tree. */
function rewriteStrips(value: unknown): void {
  if (typeof value !== 'object' || value === null) return;
  for (const part of value instanceof Map ? [...value.keys(), ...value.values()] : Object.values(value)) rewriteStrips(part);
  const node = value as Node;
  const callee = node['callee'] as Node | undefined;
  const property = callee?.['property'] as Node | undefined;
  if (node.type !== 'CallExpression' || callee?.type !== 'MemberExpression' || callee['computed'] === true || property === undefined) return;
  const name = property['value'];
  if (typeof name !== 'string' || !STRIPS.has(name)) return;
  node['args'] = [callee['object'], ...(node['args'] as Node[])];
  node['callee'] = Object.assign(Object.create(Object.getPrototypeOf(property) as object) as Node, { type: 'Identifier', value: `pith_${name}` });
}

const BRANCHES = ['body', 'alternate', 'defaultBlock'];

/** Names that these statements set in their own scope: a branch has none of its own, a loop and a macro have. */
function assigned(statements: readonly Node[]): string[] {
  return statements.flatMap((node) => {
    const target = node['assignee'] as Node | undefined;
    if (node.type === 'Set' && target?.type === 'Identifier') return [String(target['value'])];
    return node.type === 'If' ? assigned([...listOf(node, 'body'), ...listOf(node, 'alternate')]) : [];
  });
}

const setNodes = (pairs: readonly (readonly [name: string, value: string])[]): Node[] =>
  pairs.flatMap(([name, value]) => new Template(`{% set ${name} = ${value} %}`).parsed.body);

/** What a loop sets has, at the start of every pass, the value from before the loop; the package would keep that of the last pass. */
function partPasses(statements: Node[], count: { loops: number }): void {
  for (const node of [...statements]) {
    for (const branch of BRANCHES) partPasses(listOf(node, branch), count);
    if (node.type !== 'For') continue;
    const body = listOf(node, 'body');
    const outer = [...new Set(assigned(body))].map((name) => [name, `pith_outer_${count.loops}_${name}`] as const);
    count.loops++;
    body.unshift(...setNodes(outer));
    statements.splice(statements.indexOf(node), 0, ...setNodes(outer.map(([name, kept]) => [kept, name])));
  }
}

const SILENT = new Set(['Set', 'Macro', 'Comment', 'Break', 'Continue']);
const listOf = (node: Node, name: string): Node[] => (node[name] as Node[] | undefined) ?? [];

function prints(node: Node): boolean {
  if (SILENT.has(node.type ?? '')) return false;
  if (node.type === 'If') return [...listOf(node, 'body'), ...listOf(node, 'alternate')].some(prints);
  if (node.type === 'For') return [...listOf(node, 'body'), ...listOf(node, 'defaultBlock')].some(prints);
  return true;
}

/** `printed`: this pass through the loop may already have printed something. */
function checkLoops(statements: readonly Node[], printed: boolean): void {
  let before = printed;
  for (const node of statements) {
    if ((node.type === 'Break' || node.type === 'Continue') && before) throw new Error('break or continue after output in a loop is not supported');
    if (node.type === 'If') for (const branch of ['body', 'alternate']) checkLoops(listOf(node, branch), before);
    else for (const inner of ['body', 'defaultBlock']) checkLoops(listOf(node, inner), false);
    before ||= prints(node);
  }
}
