/** Log-sum-exp, likeliest token, target and divergence from panels of logits, against f64 over whole rows. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { forEachBackend } from '../../support/backends.js';

const load = () => import('../../../kernels/nn/token-scores.js');

const [ROWS, COLUMNS] = [5, 101];
const rng = new Rng(31);
const logits = (spread: number, shift: number): Float32Array => rng.normals(ROWS * COLUMNS).map((v) => v * spread + shift);
/** Logits of two models; targets in every panel and at its ends. */
const Z = logits(3, 0);
const R = logits(4, 60);
// the greatest twice: the lower column counts
Z[7] = Z[90] = 25;
const TARGETS = Int32Array.of(7, 0, 100, 40, 64);

function reference(z: Float32Array, row: number): { logP: number[]; top: number } {
  const values = Array.from(z.subarray(row * COLUMNS, (row + 1) * COLUMNS));
  const m = Math.max(...values);
  const lse = m + Math.log(values.reduce((sum, v) => sum + Math.exp(v - m), 0));
  return { logP: values.map((v) => v - lse), top: values.indexOf(m) };
}

const panel = (z: Float32Array, from: number, to: number): Float32Array =>
  Float32Array.from({ length: ROWS * (to - from) }, (_, i) => z[Math.floor(i / (to - from)) * COLUMNS + from + (i % (to - from))]!);

forEachBackend('token scores', (open) => {
  for (const step of [COLUMNS, 64, 33, 4, 1]) {
    it(`in panels of ${step} columns are those of whole rows`, async () => {
      const { tf } = open();
      const { panelDivergence, panelSums, RunningDivergence, RunningSums } = await load();
      const [own, other] = [new RunningSums(ROWS), new RunningSums(ROWS)];
      const divergence = new RunningDivergence(own, other);
      for (let from = 0; from < COLUMNS; from += step) {
        const to = Math.min(COLUMNS, from + step);
        const outputs = tf.tidy(() => {
          const [z, r] = [Z, R].map((v) => tf.tensor2d(panel(v, from, to), [ROWS, to - from])) as [never, never];
          const targets = tf.tensor1d(
            TARGETS.map((t) => t - from),
            'int32',
          );
          const [a, b] = [panelSums(z, targets), panelSums(r, targets)];
          return [a, b, panelDivergence(z, r, a, b)];
        });
        const [a, b, d] = (await Promise.all(outputs.map((t) => t.data()))) as [Float32Array, Float32Array, Float32Array];
        tf.dispose(outputs);
        divergence.add(0, a, b, d, from);
      }
      const [nll, otherNll, kld] = [own.nll(), other.nll(), divergence.values()];
      for (let row = 0; row < ROWS; row++) {
        const [p, q] = [reference(Z, row), reference(R, row)];
        const target = TARGETS[row]!;
        expect(nll[row]).to.be.closeTo(-p.logP[target]!, 2e-5);
        expect(otherNll[row]).to.be.closeTo(-q.logP[target]!, 2e-5);
        // a GPU's argMax may take any of equals
        const top = open().tfName === 'webgpu' && own.top[row] === 90 ? 7 : own.top[row];
        expect([top, other.top[row]]).to.deep.equal([p.top, q.top]);
        const expected = q.logP.reduce((sum, b, i) => sum + Math.exp(b) * (b - p.logP[i]!), 0);
        expect(kld[row]).to.be.closeTo(expected, 2e-5 * Math.max(1, expected));
      }
    });
  }

  it('do not hide values that are not finite', async () => {
    const { tf } = open();
    const { panelSums, RunningSums } = await load();
    const sums = tf.tidy(() => panelSums(tf.tensor2d([1, NaN, 2, 0, 0, 0], [2, 3]), tf.tensor1d([0, 1], 'int32')));
    const running = new RunningSums(2);
    running.add(0, (await sums.data()) as Float32Array, 0);
    sums.dispose();
    const [bad, good] = running.nll();
    // a GPU's maximum need not know NaN; wherever it is kept it must come through
    if (open().tfName !== 'webgpu') expect(bad).to.be.NaN;
    expect(good).to.be.closeTo(Math.log(3), 1e-5);
  });
});
