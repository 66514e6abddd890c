/** What travels with weights from one checkpoint's folder into another one's. */

/** Weights in whatever format, and their indexes: of the folder that they are copied from, not of the new one. */
export const isWeightFile = (name: string): boolean => /\.(safetensors|bin|pt|pth|gguf|h5|msgpack|onnx)$|\.index\.json$/.test(name);

export interface ConfigField {
  readonly key: string;
  /** As JSON. */
  readonly value: string;
  /** Put in where it is not there; left out otherwise. */
  readonly add?: boolean;
}

/** config.json with the values of a few keys replaced, everything else byte for byte: a number keeps the form that Python gave it. */
export function withFields(config: Uint8Array, fields: readonly ConfigField[]): Uint8Array {
  let out = Buffer.from(config.buffer, config.byteOffset, config.length).toString('utf8');
  for (const { key, value, add } of fields) {
    const field = new RegExp(`("${key}"\\s*:\\s*)("[^"]*"|true|false|null|\\d+)`, 'g');
    if (field.test(out)) out = out.replace(field, `$1${value}`);
    else if (add === true) out = out.replace(/^\s*\{/, () => `{\n  "${key}": ${value},`);
  }
  return Buffer.from(out, 'utf8');
}

/** config.json without some of its top-level keys, everything else byte for byte. A text that is no JSON object is left as it is. */
export function withoutFields(config: Uint8Array, keys: readonly string[]): Uint8Array {
  let text = Buffer.from(config.buffer, config.byteOffset, config.length).toString('utf8');
  for (const key of keys) {
    const field = topLevel(text).find((f) => f.key === key);
    if (field !== undefined) text = text.slice(0, field.start) + text.slice(field.end);
  }
  return Buffer.from(text, 'utf8');
}

interface Member {
  readonly key: string;
  /** With the comma that goes with it. */
  readonly start: number;
  readonly end: number;
}

/** The members of the outermost object, by where they lie. */
function topLevel(text: string): Member[] {
  const members: Member[] = [];
  const tokens = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g;
  let depth = 0;
  let [start, key, comma] = [0, undefined as string | undefined, false];
  const close = (end: number, more: boolean): void => {
    // the last member takes the comma before it along
    if (key !== undefined) members.push(more || !comma ? { key, start, end: more ? end + 1 : end } : { key, start: start - 1, end });
    [start, key, comma] = [end + 1, undefined, true];
  };
  for (const { 0: token, index } of text.matchAll(tokens)) {
    if (token === '{' || token === '[') {
      if (depth++ === 0) start = index + 1;
    } else if (token === '}' || token === ']') {
      if (--depth === 0) close(text.slice(0, index).trimEnd().length, false);
    } else if (depth === 1 && token === ',') close(index, true);
    else if (depth === 1 && key === undefined && token.startsWith('"')) key = JSON.parse(token) as string;
  }
  return members;
}
