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
    else if (add === true) out = out.replace(/^\s*\{/, `{\n  "${key}": ${value},`);
  }
  return Buffer.from(out, 'utf8');
}
