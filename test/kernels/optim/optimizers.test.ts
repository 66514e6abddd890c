/** Optimizers and schedules against numbers worked out by hand and by torch (methods' papers; see kernels/optim). */
import { expect } from 'chai';
import { clipFactor, makeOptimizer, OPTIMIZER_DEFAULTS, OPTIMIZERS, type OptimizerName } from '../../../kernels/optim/optimizers.js';
import { rateAt, type Schedule } from '../../../kernels/optim/schedules.js';

function walk(name: OptimizerName, gradients: readonly number[], weightDecay = 0.01): number[] {
  const optimizer = makeOptimizer({ name, weightDecay, ...OPTIMIZER_DEFAULTS[name] });
  const x = Float32Array.of(1);
  const state = optimizer.init([1]);
  return gradients.map((g, i) => {
    optimizer.update(x, Float32Array.of(g), state, { step: i + 1, rate: 0.1, decay: true });
    return x[0]!;
  });
}

function near(got: readonly number[], want: readonly number[]): void {
  got.forEach((v, i) => expect(v).to.be.closeTo(want[i]!, 1e-6));
}

describe('kernels: optimizers', () => {
  it('two steps of AdamW, Lion and SGD', () => {
    near(walk('adamw', [0.5, -0.25]), [0.899, 0.8714673]);
    near(walk('lion', [0.5, -0.25]), [0.899, 0.998101]);
    near(walk('sgd', [0.5, -0.25]), [0.949, 0.927151]);
  });

  it('Adafactor of one value is a step of the rate against the sign at first', () => {
    near(walk('adafactor', [0.5], 0), [0.9]);
  });

  it('Adafactor of a rank-one square: rows and columns give the exact root, so that every update has one size', () => {
    const optimizer = makeOptimizer({ name: 'adafactor', weightDecay: 0, ...OPTIMIZER_DEFAULTS.adafactor });
    const [r, c] = [
      [1, 2, 3],
      [0.5, -4],
    ];
    const g = Float32Array.from(r.flatMap((a) => c.map((b) => a * b)));
    const x = new Float32Array(6);
    optimizer.update(x, g, optimizer.init([3, 2]), { step: 1, rate: 0.1, decay: true });
    near(
      [...x],
      [...g].map((v) => -0.1 * Math.sign(v)),
    );
  });

  it('a zero gradient without decay leaves all as it was', () => {
    for (const name of OPTIMIZERS) expect(walk(name, [0], 0), name).to.deep.equal([1]);
  });

  it('clips to the norm', () => {
    const { norm, factor } = clipFactor([Float32Array.of(3), Float32Array.of(4)], 1);
    expect(norm).to.equal(5);
    near([3 * factor, 4 * factor], [0.5999999, 0.7999998]);
    expect(clipFactor([Float32Array.of(3, 4)], 0).factor).to.equal(1);
  });
});

describe('kernels: schedules', () => {
  const base = { rate: 1e-4, least: 1e-5, warmup: 0, steps: 100 };
  it('warm-up, then each its own way', () => {
    const at = (s: Partial<Schedule> & Pick<Schedule, 'name'>, step: number): number => rateAt({ ...base, ...s }, step);
    expect(at({ name: 'cosine', warmup: 10 }, 5)).to.be.closeTo(5e-5, 1e-12);
    near(
      [at({ name: 'cosine' }, 0), at({ name: 'cosine' }, 50), at({ name: 'cosine' }, 100)].map((v) => v * 1e4),
      [1, 0.55, 0.1],
    );
    expect(at({ name: 'linear', least: 0 }, 25)).to.be.closeTo(7.5e-5, 1e-12);
    expect(at({ name: 'constant' }, 99)).to.equal(1e-4);
    expect(at({ name: 'inverse-sqrt', warmup: 4 }, 16)).to.be.closeTo(5e-5, 1e-12);
    expect(at({ name: 'wsd', decay: 20 }, 80)).to.equal(1e-4);
    near(
      [at({ name: 'wsd', decay: 20 }, 85), at({ name: 'wsd', decay: 20 }, 90)].map((v) => v * 1e4),
      [0.5, 0.292893],
    );
  });
});
