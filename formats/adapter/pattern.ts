/** Regular expressions that come with an adapter: one that somebody else wrote may take for ever on the right text. */
import { createContext, Script, type Context } from 'node:vm';

/** An expression that takes longer on one name counts as none. */
const LIMIT_MS = 200;

const test = new Script('expression.test(text)');
/** The engine stops a running expression only in a context of its own; made once. */
let context: Context | undefined;
/** Those that could not be compiled, or ran into the limit once, are not tried again. */
const expressions = new Map<string, RegExp | undefined>();

/** Whether the text matches; undefined when it is no expression of JavaScript's, or one that does not end. */
export function matchesWithin(source: string, text: string): boolean | undefined {
  if (!expressions.has(source)) expressions.set(source, compile(source));
  const expression = expressions.get(source);
  if (expression === undefined) return undefined;
  context ??= createContext({});
  Object.assign(context, { expression, text });
  try {
    return test.runInContext(context, { timeout: LIMIT_MS }) as boolean;
  } catch {
    expressions.set(source, undefined);
    return undefined;
  }
}

function compile(source: string): RegExp | undefined {
  try {
    return new RegExp(source);
  } catch {
    return undefined;
  }
}
