/** Mutations of bytes, of JSON text and of safetensors headers, each decided by one random stream. */
import type { Rng } from '../../core/rng.js';

const pick = <T>(rng: Rng, from: readonly T[]): T => from[rng.integer(from.length)]!;

/** What parsers get wrong: signs, limits of 32, 53 and 64 bits, fractions, exponents, other types. */
const VALUES =
  '0 -0 -1 1 2 7 8 255 256 65535 65536 2147483647 2147483648 4294967295 4294967296 9007199254740991 9007199254740992 9223372036854775807 18446744073709551615 18446744073709551616 1e3 1e400 1.5 null true [] {} "" "x" [1] {"a":1}'.split(
    ' ',
  );
const DTYPES = 'BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64 F128 bf16'.split(' ');
const NAMES = [
  '__metadata__',
  '__proto__',
  'constructor',
  '',
  '../x',
  '/etc/x',
  'a/../../b',
  '\\u0000',
  '\\ud800',
  'model.safetensors',
  'identical',
  'lossless',
];
const PIECES = [
  '[',
  ']',
  '{',
  '}',
  ',',
  ':',
  '"',
  '\\',
  ' ',
  '\n',
  '\u0000',
  '\u00ff',
  '9'.repeat(400),
  '['.repeat(3000),
  '{"a":'.repeat(2000),
  '['.repeat(60_000) + ']'.repeat(60_000),
  '/*x*/',
  '\ufeff',
  'NaN',
  '-',
];

/** Flips bits, cuts, repeats, moves or overwrites ranges: no idea of the format. */
export function mutateBytes(rng: Rng, input: Uint8Array): Uint8Array {
  let bytes = Buffer.from(input);
  for (let n = 1 + rng.integer(3); n > 0; n--) bytes = mutateOnce(rng, bytes);
  return bytes;
}

function mutateOnce(rng: Rng, bytes: Buffer<ArrayBuffer>): Buffer<ArrayBuffer> {
  const at = rng.integer(bytes.length + 1);
  const length = Math.min(bytes.length - at, 1 + rng.integer(rng.integer(4) === 0 ? 4096 : 16));
  const noise = (n: number): Buffer => Buffer.from(Uint8Array.from({ length: n }, () => rng.uint32()));
  const copy = Buffer.from(bytes);
  switch (rng.integer(8)) {
    case 0:
    case 1:
      for (let i = 0; i < 1 + rng.integer(4) && bytes.length > 0; i++) copy[rng.integer(bytes.length)]! ^= 1 << rng.integer(8);
      return copy;
    case 2:
      return bytes.subarray(0, at);
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
    case 4:
      return Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]);
    case 5:
      noise(length).copy(copy, at);
      return copy;
    case 6:
      copy.fill(pick(rng, [0, 0xff, 0x7f, 0x80]), at, at + length);
      return copy;
    default:
      return Buffer.concat([bytes.subarray(0, at), noise(length), bytes.subarray(at)]);
  }
}

/** Edits tokens of a JSON text: numbers, strings, dtypes, whole pieces. */
export function mutateJson(rng: Rng, text: string): string {
  let out = text;
  for (let n = 1 + rng.integer(3); n > 0; n--) out = mutateText(rng, out);
  return out;
}

function mutateText(rng: Rng, text: string): string {
  const at = rng.integer(text.length + 1);
  const length = rng.integer(rng.integer(3) === 0 ? 200 : 8);
  switch (rng.integer(9)) {
    case 0:
    case 1:
    case 2:
      return replaceToken(rng, text, /(?<![\w.])-?\d+(?![\w.])/g, pick(rng, VALUES));
    case 3:
      return replaceToken(rng, text, /"(?:BOOL|F\d+\w*|BF16|[IU]\d+|C64)"/g, `"${pick(rng, DTYPES)}"`);
    case 4:
      return replaceToken(rng, text, /"(?:[^"\\]|\\.)*"/g, rng.integer(2) === 0 ? `"${pick(rng, NAMES)}"` : pick(rng, VALUES));
    case 5:
      return text.slice(0, at) + text.slice(at + length);
    case 6:
      return text.slice(0, at) + text.slice(Math.max(0, at - length), at) + text.slice(at);
    case 7:
      return text.slice(0, at) + pick(rng, PIECES) + text.slice(at);
    default:
      return swapTokens(rng, text);
  }
}

function replaceToken(rng: Rng, text: string, pattern: RegExp, value: string): string {
  const found = [...text.matchAll(pattern)];
  if (found.length === 0) return text;
  const m = pick(rng, found);
  // a number also near its old value: off by one is what bounds checks miss
  const old = Number(m[0]);
  const near = Number.isInteger(old) && rng.integer(2) === 0 ? String(old + rng.integer(5) - 2) : value;
  return text.slice(0, m.index) + near + text.slice(m.index + m[0].length);
}

function swapTokens(rng: Rng, text: string): string {
  const found = [...text.matchAll(/-?\d+|"(?:[^"\\]|\\.)*"/g)];
  if (found.length < 2) return text;
  const [a, b] = [pick(rng, found), pick(rng, found)].sort((x, y) => x.index - y.index) as [RegExpExecArray, RegExpExecArray];
  if (a.index === b.index) return text;
  return text.slice(0, a.index) + b[0] + text.slice(a.index + a[0].length, b.index) + a[0] + text.slice(b.index + b[0].length);
}

/** The two halves of a safetensors file. */
export function splitFile(file: Uint8Array): { json: string; data: Uint8Array } {
  const n = Number(Buffer.from(file).readBigUInt64LE(0));
  return {
    json: Buffer.from(file.subarray(8, 8 + n))
      .toString('utf8')
      .trimEnd(),
    data: file.subarray(8 + n),
  };
}

/** `claimed`: another length than the header has. */
export function joinFile(json: string, data: Uint8Array, claimed?: bigint): Uint8Array {
  const body = Buffer.from(json, 'utf8');
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt.asUintN(64, claimed ?? BigInt(body.length)));
  return Buffer.concat([head, body, data]);
}

/** A safetensors file with a fault in its bytes, its header's JSON, its header's length or its data. */
export function mutateSafetensors(rng: Rng, file: Uint8Array): Uint8Array {
  const { json, data } = splitFile(file);
  switch (rng.integer(6)) {
    case 0:
      return mutateBytes(rng, file);
    case 1:
      return joinFile(
        json,
        data,
        pick(rng, [0n, 1n, 2n, BigInt(json.length) - 1n, BigInt(json.length) + 1n, 100_000_000n, 100_000_001n, 2n ** 31n, 2n ** 53n, 2n ** 63n, -1n]),
      );
    case 2:
      return Buffer.concat([file.subarray(0, file.length - data.length), mutateBytes(rng, data)]);
    case 3:
      return joinFile(Buffer.from(mutateBytes(rng, Buffer.from(json))).toString('latin1'), data);
    default:
      return joinFile(mutateJson(rng, json), data);
  }
}

const U64 = [0n, 1n, 31n, 32n, 63n, 64n, 255n, 65_535n, 65_536n, 2n ** 30n, 2n ** 30n + 1n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 62n, 2n ** 63n, -1n, -2n];

/** A GGUF file with a fault in its first kilobytes, where the counts, lengths and types are, or anywhere. */
export function mutateGguf(rng: Rng, file: Uint8Array): Uint8Array {
  const copy = Buffer.from(file);
  const near = Math.min(file.length, 1 << (6 + rng.integer(9)));
  switch (rng.integer(5)) {
    case 0:
      return mutateBytes(rng, file);
    case 1:
      return Buffer.concat([mutateBytes(rng, file.subarray(0, near)), file.subarray(near)]);
    case 2:
      // a count or a length: any eight bytes
      copy.writeBigUInt64LE(BigInt.asUintN(64, pick(rng, U64)), rng.integer(Math.max(1, near - 8)));
      return copy;
    case 3:
      // a type id or a small number: any four
      copy.writeUInt32LE(rng.integer(3) === 0 ? rng.uint32() : rng.integer(48), rng.integer(Math.max(1, near - 4)));
      return copy;
    default: {
      // another word of the same length: keys, names, architectures, tokens
      const at = rng.integer(near);
      const words = ['llama', 'gemma', 'gpt2', 'bert', 'phi3', 'qwen2', 'array', 'token', 'split', '\u2581\u2581', '\u0000\u0000'];
      copy.write(pick(rng, words), at, 'utf8');
      return copy;
    }
  }
}
