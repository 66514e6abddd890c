/** Sums over layer inputs against sums in f64, on every backend. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { GramSum } from '../../../kernels/linalg/gram-sum.js';
import { forEachBackend } from '../../support/backends.js';

interface Sums {
  readonly squares: Float64Array;
  readonly absolutes: Float64Array;
  readonly gram: Float64Array;
}

function direct(blocks: readonly Float32Array[], n: number): Sums {
  const [squares, absolutes, gram] = [new Float64Array(n), new Float64Array(n), new Float64Array(n * n)];
  for (const x of blocks) {
    for (let r = 0; r < x.length; r += n) {
      for (let i = 0; i < n; i++) {
        const v = x[r + i]!;
        squares[i]! += v * v;
        absolutes[i]! += Math.abs(v);
        for (let j = 0; j < n; j++) gram[i * n + j]! += v * x[r + j]!;
      }
    }
  }
  return { squares, absolutes, gram };
}

/** ||a - b|| / ||b|| */
function relative(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [error, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    error += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return Math.sqrt(error / norm);
}

// one column; odd sizes; panels that are not whole; more rows than a block of products holds
const CASES = [
  { n: 1, rows: [3] },
  { n: 5, rows: [7, 1, 12] },
  { n: 300, rows: [40, 40] },
  { n: 513, rows: [1100, 2, 30] },
];

forEachBackend('input sums', () => {
  for (const { n, rows } of CASES) {
    it(`${rows.join(' + ')} rows of ${n} channels`, async function () {
      this.timeout(120_000);
      const tf = await import('#tf');
      const { addRows, InputSums } = await import('../../../kernels/nn/input-sums.js');
      const rng = new Rng(7).fork(`${n}`);
      // a mean that is not 0: sums of one sign lose the most digits
      const blocks = rows.map((r) => rng.normals(r * n).map((v) => v + 0.5));
      const before = tf.memory().numTensors;
      const sums = new InputSums(n, { gram: true });
      for (const x of blocks) {
        const t = tf.tensor2d(x, [x.length / n, n]);
        expect(await addRows(t, sums).settle()).to.equal(-1);
        t.dispose();
      }
      expect(tf.memory().numTensors).to.equal(before);
      const right = direct(blocks, n);
      expect(relative(sums.squares, right.squares)).to.be.below(1e-6);
      expect(relative(sums.absolutes, right.absolutes)).to.be.below(1e-6);
      const gram = new Float32Array(n * n);
      const cut = Math.floor(n / 3);
      sums.gram!.rows(0, cut, gram.subarray(0, cut * n));
      sums.gram!.rows(cut, n, gram.subarray(cut * n));
      expect(relative(gram, right.gram)).to.be.below(1e-6);
      let odd = 0;
      for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) if (gram[i * n + j] !== gram[j * n + i]) odd++;
      expect(odd, 'values that differ from their mirror').to.equal(0);
    });
  }

  it('the first row that is not finite is told', async () => {
    const tf = await import('#tf');
    const { addRows, InputSums } = await import('../../../kernels/nn/input-sums.js');
    for (const bad of [NaN, Infinity, -Infinity]) {
      const x = new Float32Array(600 * 3).fill(1);
      x[530 * 3 + 1] = bad;
      x[570 * 3] = NaN;
      const t = tf.tensor2d(x, [600, 3]);
      expect(await addRows(t, new InputSums(3, { gram: true })).settle(), String(bad)).to.equal(530);
      t.dispose();
    }
  });
});

describe('gram sums', () => {
  it('count their bytes', () => {
    for (const n of [1, 255, 256, 257, 1000]) {
      // the upper triangle and the squares on the diagonal
      const panels = Math.ceil(n / 256);
      const last = n - (panels - 1) * 256;
      const triangle = (n * n + (panels - 1) * 256 * 256 + last * last) / 2;
      expect(GramSum.bytes(n)).to.equal(8 * triangle);
    }
  });
});
