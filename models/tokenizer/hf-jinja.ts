/**
 * What pith uses of @huggingface/jinja, with its types: the package's own declarations leave out file extensions, so TypeScript does not find
 * them for an ES module under NodeNext.
 */
import * as hf from '@huggingface/jinja';

/** Any node of the package's syntax tree, or a part of one. */
export type JinjaNode = Record<string, unknown> & { type?: string };

export interface JinjaProgram extends JinjaNode {
  readonly body: JinjaNode[];
}

interface Parts {
  /** Parses with trim_blocks and lstrip_blocks; throws on bad syntax. */
  readonly Template: new (source: string) => { readonly parsed: JinjaProgram };
  readonly Environment: new () => { set(name: string, value: unknown): unknown };
  readonly Interpreter: new (environment: object) => { run(program: JinjaProgram): { readonly value: unknown } };
}

export const { Template, Environment, Interpreter } = hf as unknown as Parts;
