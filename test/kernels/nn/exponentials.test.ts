/** The exponentials under softmax, activations and losses, straight from the wasm module, against f64. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import type { NnExports } from '../../../kernels/nn/heap.js';
import { loadWasm } from '../../../kernels/wasm/load.js';

/** What kernels/wasm/assembly/nn.ts says of both. */
const RELATIVE = 1.5e-7;

describe('kernels/wasm nn: exponentials', () => {
  let nn: NnExports;
  let values: Float32Array;
  let integers: Int32Array;
  before(async () => {
    const { exports, memory } = await loadWasm<NnExports>('nn', 1 << 17);
    nn = exports;
    values = new Float32Array(memory.buffer);
    integers = new Int32Array(memory.buffer);
  });

  /** e^x: what the gradient of a cross entropy has at lse 0 and weight 1, away from the target. */
  function exp(x: readonly number[]): number[] {
    const [z, target, lse, weight, n] = [64, 16, 32, 48, x.length + 1];
    values.set([0, ...x], z / 4);
    integers[target / 4] = 0;
    values[lse / 4] = 0;
    values[weight / 4] = 1;
    nn.crossEntropyGradRows(z, target, lse, weight, 1, n, 0);
    return [...values.subarray(z / 4 + 1, z / 4 + n)];
  }

  /** 2^x of x <= 0: a row of scores whose greatest is 0, not yet divided; ln 2 times log2 e is 1 in f32. */
  function exp2(x: readonly number[]): { row: number[]; lse: number; inv: number } {
    const [s, lse, inv, n] = [64, 16, 32, x.length + 1];
    values.set([0, ...x], s / 4);
    nn.softmaxRows(s, 1, n, 0, 0, 0, 0, Math.LN2, 0, lse, inv);
    return { row: [...values.subarray(s / 4 + 1, s / 4 + n)], lse: values[lse / 4]!, inv: values[inv / 4]! };
  }

  const near = (got: number, wanted: number, x: number): void => {
    expect(Math.abs(got / wanted - 1), `at ${x}: ${got} for ${wanted}`).to.be.lessThan(RELATIVE);
  };
  // halves are where the rounding to an integer turns
  const points = (least: number): number[] => {
    const random = [...new Rng(5).normals(8000)].map((u) => Math.fround(-Math.abs(u * least) / 4)).filter((x) => x >= -Math.abs(least));
    const halves = Array.from({ length: 2 * Math.floor(-least) }, (_, i) => -i / 2);
    return [...random, ...halves, ...halves.map((x) => Math.fround(x * 1.0000001))].filter((x) => x >= least);
  };

  it('e^x to 1.5e-7, nothing below e^-87.33', () => {
    const x = points(-87.33);
    exp(x).forEach((e, i) => near(e, Math.exp(x[i]!), x[i]!));
    expect(exp([-87.34, -1000, -Infinity, -3.4e38])).to.deep.equal([0, 0, 0, 0]);
    expect(exp([NaN])[0]).to.be.NaN;
    near(exp([80])[0]!, Math.exp(80), 80);
  });

  it('2^x to 1.5e-7, 2^-126 below; the sum with it', () => {
    const x = points(-126);
    const { row, lse, inv } = exp2(x);
    row.forEach((e, i) => near(e, 2 ** x[i]!, x[i]!));
    const sum = x.reduce((a, v) => a + 2 ** v, 1);
    expect(lse).to.be.closeTo(Math.log2(sum), 1e-5);
    expect(inv * sum).to.be.closeTo(1, 1e-5);
    expect(exp2([-127, -1e30, -Infinity]).row).to.deep.equal([2 ** -126, 2 ** -126, 2 ** -126]);
  });

  it('a score that is no number spoils its row, as in torch', () => {
    for (const x of [NaN, Infinity]) {
      for (const place of [0, 5]) {
        const scores = Array.from({ length: 9 }, (_, i) => (i === place ? x : -i));
        expect(exp2(scores).inv, `${x} at ${place}`).to.be.NaN;
      }
    }
  });
});
