/** Every malformed-file case of the format sheet, with its verdict and its own error code. */
import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ErrorCode } from '../../../core/errors.js';
import { SafetensorsFile } from '../../../formats/safetensors/file.js';
import { errorOf } from '../../support/expect-error.js';
import { tempDir } from '../../support/files.js';

const T = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}';
const at = (begin: number | string, end: number | string, shape = '[2]', dtype = 'F32'): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

function raw(n: bigint, rest: Uint8Array | string = ''): Uint8Array {
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(n);
  return Buffer.concat([head, typeof rest === 'string' ? Buffer.from(rest, 'latin1') : rest]);
}
const H = (json: string, data = 0): Uint8Array => {
  const bytes = Buffer.from(json, 'utf8');
  return raw(BigInt(bytes.length), Buffer.concat([bytes, Buffer.alloc(data)]));
};
const one = (entry: string, data: number): Uint8Array => H(`{"a":${entry}}`, data);
const two = (a: string, b: string, data: number): Uint8Array => H(`{"a":${a},"b":${b}}`, data);
const U64 = '18446744073709551615';

type Case = readonly [number: string, file: Uint8Array, verdict: ErrorCode | 'ok' | 'warn'];
const CASES: readonly Case[] = [
  ['1', Buffer.alloc(0), 'HEADER_TOO_SMALL'],
  ['2', Buffer.alloc(7), 'HEADER_TOO_SMALL'],
  ['3', raw(0n), 'HEADER_JSON'],
  ['4', raw(2n, '{}'), 'ok'],
  ['5', raw(2n, '{}x'), 'FILE_NOT_COVERED'],
  ['6', raw(100000001n, '{}'), 'HEADER_TOO_LARGE'],
  ['7', raw(100000000n, '{}'), 'HEADER_LENGTH'],
  ['8a', raw(2n ** 63n, '{}'), 'HEADER_TOO_LARGE'],
  ['8b', raw(2n ** 64n - 1n, '{}'), 'HEADER_TOO_LARGE'],
  ['9', raw(3n, '{}'), 'HEADER_LENGTH'],
  ['10', raw(10n, `{"a":${T}}${'\0'.repeat(8)}`), 'HEADER_JSON'],
  ['11', raw(7n, '{"\xff":1}'), 'HEADER_UTF8'],
  ['12', raw(4n, '{}\0\0'), 'HEADER_JSON'],
  ['13', raw(5n, '\xef\xbb\xbf{}'), 'HEADER_JSON'],
  ['14a', raw(2n, '[]'), 'HEADER_JSON'],
  ['14b', raw(4n, 'null'), 'HEADER_JSON'],
  ['15', H(`  {"a":${T}}`, 8), 'warn'],
  ['16', H(`{"a":${T},"a":${T}}`, 8), 'HEADER_DUPLICATE'],
  ['17', H(`{"a":${T},"a":${at(8, 16)}}`, 16), 'HEADER_DUPLICATE'],
  ['18', H('{"__metadata__":{},"__metadata__":{}}'), 'HEADER_DUPLICATE'],
  ['19', H('{"__metadata__":{"a":1}}'), 'HEADER_METADATA'],
  ['20a', one(at(0, 8, '[2]', 'F33'), 8), 'HEADER_DTYPE'],
  ['20b', one(at(0, 8, '[2]', 'f32'), 8), 'HEADER_DTYPE'],
  ['21a', one(at(0, 8, '[-2]'), 8), 'HEADER_FIELD'],
  ['21b', one(at(0, 8, '[-2,-1]'), 8), 'HEADER_FIELD'],
  ['22a', one(at(0, 8, '[2.0]'), 8), 'HEADER_FIELD'],
  ['22b', one(at(0, 8, '[2e0]'), 8), 'HEADER_FIELD'],
  ['23', one('{"dtype":"F32","data_offsets":[0,8]}', 8), 'HEADER_FIELD'],
  ['24a', one('{"dtype":"F32","shape":[2],"data_offsets":[8]}', 8), 'HEADER_FIELD'],
  ['24b', one('{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}', 8), 'HEADER_FIELD'],
  ['25', one(at(8, 0), 8), 'TENSOR_OFFSET'],
  ['26', one(at(4, 12), 12), 'TENSOR_OFFSET'],
  ['27', two(T, at(12, 20), 20), 'TENSOR_OFFSET'],
  ['28', two(T, at(4, 12), 12), 'TENSOR_OFFSET'],
  ['29', two(T, T, 8), 'TENSOR_OFFSET'],
  ['30', H(`{"b":${at(8, 16)},"a":${T}}`, 16), 'ok'],
  ['31a', one(at(0, 8, '[3]'), 8), 'TENSOR_SIZE'],
  ['31b', one(at(0, 8, '[1]'), 8), 'TENSOR_SIZE'],
  ['32a', one(T, 7), 'FILE_NOT_COVERED'],
  ['32b', one(T, 9), 'FILE_NOT_COVERED'],
  ['33', one(at(0, 8, '[2,18446744073709551614]'), 8), 'TENSOR_OVERFLOW'],
  ['34', one(at(0, '2305843009213693952', '[576460752303423488]'), 8), 'TENSOR_OVERFLOW'],
  ['35', one(at(0, 8, '[18446744073709551616]'), 8), 'HEADER_FIELD'],
  ['36', one(at(0, U64, '[1]'), 8), 'TENSOR_SIZE'],
  ['37', one(at(0, 0, '[0,3]'), 0), 'ok'],
  ['38', two(T, at(4, 4, '[0]'), 8), 'TENSOR_OFFSET'],
  ['39a', one(at(0, 4, '[]'), 4), 'ok'],
  ['39b', one(at(0, 0, '[]'), 0), 'TENSOR_SIZE'],
  ['40a', one(at(0, 2, '[3]', 'F4'), 2), 'TENSOR_MISALIGNED'],
  ['40b', one(at(0, 1, '[]', 'F4'), 1), 'TENSOR_MISALIGNED'],
  ['40c', one(at(0, 2, '[3]', 'F6_E2M3'), 2), 'TENSOR_MISALIGNED'],
  ['41a', one(at(0, 2, '[4]', 'F4'), 2), 'ok'],
  ['41b', one(at(0, 3, '[4]', 'F6_E2M3'), 3), 'ok'],
  ['42', two(at(0, 1, '[1]', 'U8'), at(1, 9), 9), 'ok'],
  ['43', H(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":${'['.repeat(200)}${']'.repeat(200)}}}`, 8), 'HEADER_DEPTH'],
  ['44', one('["F32",[2],[0,8]]', 8), 'HEADER_FIELD'],
  ['45', H(`{"\\ud800":${T}}`, 8), 'HEADER_JSON'],
  // the dialect table
  ['trailing whitespace', H(`{"a":${T}} \t\r\n`, 8), 'ok'],
  ['metadata null', H(`{"__metadata__":null,"a":${T}}`, 8), 'ok'],
  ['metadata not an object', H('{"__metadata__":"x"}'), 'HEADER_METADATA'],
  ['metadata duplicate key', H('{"__metadata__":{"a":"1","a":"2"}}'), 'HEADER_DUPLICATE'],
  ['duplicate field', one('{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}', 8), 'HEADER_DUPLICATE'],
  ['unknown field', one('{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":{"y":[1,-2.5e3,true]}}', 8), 'warn'],
  ['shape -0', one(at(0, 0, '[-0]'), 0), 'HEADER_FIELD'],
  ['shape "2"', one(at(0, 8, '["2"]'), 8), 'HEADER_FIELD'],
  ['shape 02', one(at(0, 8, '[02]'), 8), 'HEADER_JSON'],
  ['NaN', one(at(0, 8, '[NaN]'), 8), 'HEADER_JSON'],
  ['trailing comma', H(`{"a":${T},}`, 8), 'HEADER_JSON'],
  ['comment', H(`{/**/"a":${T}}`, 8), 'HEADER_JSON'],
  ['126 nested arrays', one(`{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":${'['.repeat(125)}${']'.repeat(125)}}`, 8), 'warn'],
  ['empty dimension first', one(at(0, 0, '[0,9007199254740991,9007199254740991]'), 0), 'ok'],
];

describe('formats/safetensors malformed files', () => {
  for (const [number, bytes, verdict] of CASES) {
    it(`case ${number}: ${verdict}`, async () => {
      using dir = tempDir();
      const path = join(dir.path, 'x.safetensors');
      writeFileSync(path, bytes);
      if (verdict === 'ok' || verdict === 'warn') {
        using file = SafetensorsFile.open(path);
        const own = file.warnings.filter((w) => !w.includes('multiple of 8'));
        expect(own.length > 0).to.equal(verdict === 'warn');
        return;
      }
      const error = await errorOf(() => SafetensorsFile.open(path));
      expect(error.code, error.message).to.equal(verdict);
      expect(error.exitCode).to.equal(65);
      expect(error.message).to.contain('x.safetensors');
    });
  }
});
