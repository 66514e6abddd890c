/** A layer's error against products with the inputs themselves. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { matrixOps } from '../../../kernels/linalg/matrix-ops.js';
import { changeError } from '../../../kernels/linalg/change-error.js';

const ops = await matrixOps({ blasThreads: 1 });

describe('kernels/linalg/change-error', () => {
  const rng = new Rng(3);
  // rows beyond one panel: 2^18 values
  const [m, n, tokens] = [9000, 31, 50];
  const [w, d, x] = [rng.normals(m * n), rng.normals(m * n), rng.normals(tokens * n)];
  const what = w.map((v, i) => v + 0.1 * d[i]!);
  const difference = what.map((v, i) => v - w[i]!);
  const norm = (a: Float32Array): number => Math.sqrt(a.reduce((sum, v) => sum + v * v, 0));
  const output = (a: Float32Array): number => norm(ops.multiply(false, true, tokens, m, n, x, a));

  it('with the Gram matrix: of the output', () => {
    const gram = ops.gram(x, tokens, n, false);
    const { error, of } = changeError(ops, w, what, m, n, { gram });
    expect(of).to.equal('output');
    expect(error).to.be.closeTo(output(difference) / output(w), 1e-5);
  });

  it('with square norms: their diagonal', () => {
    const squares = Float32Array.from({ length: n }, (_, j) => j + 1);
    const scaled = (a: Float32Array): number => norm(a.map((v, i) => v * Math.sqrt((i % n) + 1)));
    const { error, of } = changeError(ops, w, what, m, n, { squares });
    expect(of).to.equal('diagonal');
    expect(error).to.be.closeTo(scaled(difference) / scaled(w), 1e-6);
  });

  it('with neither: of the weight; a zero weight loses nothing', () => {
    const { error, of } = changeError(ops, w, what, m, n, {});
    expect(of).to.equal('weight');
    expect(error).to.be.closeTo(norm(difference) / norm(w), 1e-6);
    expect(changeError(ops, new Float32Array(6), new Float32Array(6), 2, 3, {}).error).to.equal(0);
  });
});
