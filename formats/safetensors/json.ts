/**
 * A typed JSON scanner over header bytes. `JSON.parse` will not do: it accepts `2.0` where the format wants an integer, merges
 * duplicate keys, loses integers above 2^53 and lone surrogates pass. Depth is limited to 127 as in serde_json.
 */
import { PithError } from '../../core/errors.js';

const MAX_DEPTH = 127;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export class JsonScanner {
  at = 0;
  #depth = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly file: string,
  ) {}

  fail(message: string): never {
    throw new PithError('HEADER_JSON', { file: this.file, position: this.at, message });
  }

  get done(): boolean {
    return this.at >= this.bytes.length;
  }

  /** Next byte after whitespace, or -1 at the end. */
  peek(): number {
    const b = this.bytes;
    for (; this.at < b.length; this.at++) {
      const c = b[this.at]!;
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return c;
    }
    return -1;
  }

  #describe(c: number): string {
    return c < 0 ? 'the end' : c >= 0x20 && c < 0x7f ? `"${String.fromCharCode(c)}"` : `byte 0x${c.toString(16).padStart(2, '0')}`;
  }

  expect(char: string): void {
    const c = this.peek();
    if (c !== char.charCodeAt(0)) this.fail(`expected "${char}", got ${this.#describe(c)}`);
    this.at++;
  }

  tryChar(char: string): boolean {
    if (this.peek() !== char.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  enter(): void {
    if (++this.#depth > MAX_DEPTH) throw new PithError('HEADER_DEPTH', { file: this.file });
  }

  leave(): void {
    this.#depth--;
  }

  /** Calls `visit` for every key of an object; `visit` consumes the value. */
  object(visit: (key: string) => void): void {
    this.expect('{');
    this.enter();
    if (!this.tryChar('}')) {
      do {
        const key = this.string();
        this.expect(':');
        visit(key);
      } while (this.tryChar(','));
      this.expect('}');
    }
    this.leave();
  }

  array(visit: () => void): void {
    this.expect('[');
    this.enter();
    if (!this.tryChar(']')) {
      do visit();
      while (this.tryChar(','));
      this.expect(']');
    }
    this.leave();
  }

  string(): string {
    this.expect('"');
    const b = this.bytes;
    const start = this.at;
    for (let i = start; i < b.length; i++) {
      const c = b[i]!;
      if (c === 0x22) {
        this.at = i + 1;
        return i - start < 64 ? ascii(b, start, i) : utf8.decode(b.subarray(start, i));
      }
      if (c === 0x5c || c < 0x20) break;
    }
    return this.#parsedString(start) ?? this.#escapedString(start);
  }

  /** A long string with escapes (a manifest is one) at JSON.parse's speed; undefined: to be read with care, to say what is wrong. */
  #parsedString(start: number): string | undefined {
    const b = this.bytes;
    for (let end = b.indexOf(0x22, start); end >= 0; end = b.indexOf(0x22, end + 1)) {
      let first = end;
      while (b[first - 1] === 0x5c) first--;
      if ((end - first) % 2 !== 0) continue;
      try {
        const text = JSON.parse(utf8.decode(b.subarray(start - 1, end + 1))) as string;
        if (!text.isWellFormed()) return undefined;
        this.at = end + 1;
        return text;
      } catch {
        return undefined;
      }
    }
    return undefined;
  }

  #escapedString(start: number): string {
    const b = this.bytes;
    let out = '';
    let run = start;
    for (this.at = start; this.at < b.length;) {
      const c = b[this.at]!;
      if (c === 0x22) {
        out += utf8.decode(b.subarray(run, this.at));
        this.at++;
        return out;
      }
      if (c < 0x20) this.fail('control character in a string');
      if (c !== 0x5c) {
        this.at++;
        continue;
      }
      out += utf8.decode(b.subarray(run, this.at));
      out += this.#escape();
      run = this.at;
    }
    return this.fail('the string does not end');
  }

  #escape(): string {
    this.at++;
    const c = this.bytes[this.at++];
    const simple = c === undefined ? undefined : SIMPLE_ESCAPES.get(c);
    if (simple !== undefined) return simple;
    if (c !== 0x75) this.fail('unknown escape');
    const unit = this.#hex4();
    if (unit >= 0xdc00 && unit <= 0xdfff) this.fail('lone surrogate');
    if (unit < 0xd800 || unit > 0xdbff) return String.fromCharCode(unit);
    if (this.bytes[this.at] !== 0x5c || this.bytes[this.at + 1] !== 0x75) this.fail('lone surrogate');
    this.at += 2;
    const low = this.#hex4();
    if (low < 0xdc00 || low > 0xdfff) this.fail('lone surrogate');
    return String.fromCharCode(unit, low);
  }

  #hex4(): number {
    const text = String.fromCharCode(...this.bytes.subarray(this.at, this.at + 4));
    if (!/^[0-9a-fA-F]{4}$/.test(text)) this.fail('expected four hex digits');
    this.at += 4;
    return parseInt(text, 16);
  }

  /** The literal text of a number, by the JSON grammar. */
  number(): string {
    const start = (this.peek(), this.at);
    while (this.at < this.bytes.length && NUMBER_BYTES.has(this.bytes[this.at]!)) this.at++;
    const text = String.fromCharCode(...this.bytes.subarray(start, Math.min(this.at, start + 400)));
    if (!/^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$/.test(text)) {
      this.at = start;
      this.fail(`expected a value, got ${this.#describe(this.peek())}`);
    }
    return text;
  }

  /** Consumes any value and says what it was, for an error message. */
  skip(): string {
    const c = this.peek();
    if (c === 0x7b) {
      this.object(() => void this.skip());
      return 'an object';
    }
    if (c === 0x5b) {
      this.array(() => void this.skip());
      return 'an array';
    }
    if (c === 0x22) return JSON.stringify(this.string());
    for (const word of ['null', 'true', 'false']) if (this.word(word)) return word;
    return this.number();
  }

  word(word: string): boolean {
    if (this.peek() !== word.charCodeAt(0)) return false;
    for (let i = 0; i < word.length; i++) if (this.bytes[this.at + i] !== word.charCodeAt(i)) return false;
    this.at += word.length;
    return true;
  }
}

const SIMPLE_ESCAPES = new Map<number, string>([
  [0x22, '"'],
  [0x5c, '\\'],
  [0x2f, '/'],
  [0x62, '\b'],
  [0x66, '\f'],
  [0x6e, '\n'],
  [0x72, '\r'],
  [0x74, '\t'],
]);
const NUMBER_BYTES = new Set(Array.from('+-.0123456789eE', (c) => c.charCodeAt(0)));

/** Short strings are nearly always ASCII names: faster than a decoder call. */
function ascii(b: Uint8Array, start: number, end: number): string {
  let s = '';
  for (let i = start; i < end; i++) {
    const c = b[i]!;
    if (c >= 0x80) return utf8.decode(b.subarray(start, end));
    s += String.fromCharCode(c);
  }
  return s;
}
