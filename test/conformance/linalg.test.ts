/** The randomized SVD on every backend: singular values agree to 1e-4, nothing is left on the device. */
import { expect } from 'chai';
import { Rng } from '../../core/rng.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { randomizedSvd, wholeMatrix } from '../../kernels/linalg/randomized-svd.js';
import { tfProducts } from '../../kernels/linalg/tf-products.js';
import { forEachBackend } from '../support/backends.js';
import { distance, frobenius, naiveProduct, withSpectrum } from '../support/random-matrix.js';

forEachBackend('conformance: randomized svd', (open) => {
  for (const [m, n, panelRows] of [
    [96, 64, 96],
    [64, 96, 64],
    [96, 64, 20],
  ] as const) {
    it(`(${m}, ${n}) in panels of ${panelRows} rows`, async () => {
      const { tf, tfName } = open();
      await tf.setBackend(tfName);
      const s = Array.from({ length: 64 }, (_, i) => (i + 1) ** -1);
      const w = withSpectrum(new Rng(5), m, n, s);
      const before = tf.memory().numTensors;
      const ops = await matrixOps({ blasThreads: 1, blas: false });
      using products = tfProducts(open());
      const svd = await randomizedSvd(wholeMatrix(w, m, n, panelRows), { rank: 8, ops, products, rng: new Rng(1), block: 18, powerSteps: 2 });
      if (panelRows === m) expect(tf.memory().numTensors, 'the matrix stays on the device').to.equal(before + 1);
      products[Symbol.dispose]();
      expect(tf.memory().numTensors, 'tensors left behind').to.equal(before);
      for (let i = 0; i < 8; i++) expect(Math.abs(svd.s[i]! / s[i]! - 1)).to.be.lessThan(1e-4);
      const error = distance(
        naiveProduct(
          svd.u.map((v, p) => v * svd.s[p % 8]!),
          svd.vt,
          m,
          8,
          n,
        ),
        w,
      );
      expect(error / frobenius(s.slice(8))).to.be.within(1 - 1e-4, 1.001);
    });
  }
});
