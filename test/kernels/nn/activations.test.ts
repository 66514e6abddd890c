import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SafetensorsFile } from '../../../formats/safetensors/file.js';
import { ACTIVATION_KINDS, ACTIVATION_SLOPES, activationKind, ACTIVATIONS, erf } from '../../../kernels/nn/activations.js';
import { ROOT } from '../../support/files.js';
import { opGolden } from '../../support/goldens.js';

const golden = opGolden<{ readonly activation: string }>('activation');
const closeEnough = (got: number, wanted: number): boolean => Math.abs(got - wanted) <= 2e-6 * Math.max(1, Math.abs(wanted));

describe('kernels/nn/activations', () => {
  for (const [name, c] of Object.entries(golden.document.cases)) {
    it(`${name}: values and slopes as torch's`, () => {
      const kind = activationKind(c.activation)!;
      const [x, y, dx, dy] = ['x', 'y', 'dx', 'dy'].map((t) => golden.tensor(`${name}.${t}`).values) as [
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
      ];
      for (let i = 0; i < x.length; i++) {
        const value = ACTIVATIONS[kind](x[i]!);
        expect(closeEnough(value, y[i]!), `${name}(${x[i]!}): expected ${y[i]!}, got ${value}`).to.be.true;
        const slope = ACTIVATION_SLOPES[kind](x[i]!) * dy[i]!;
        expect(closeEnough(slope, dx[i]!), `${name}'(${x[i]!}): expected ${dx[i]!}, got ${slope}`).to.be.true;
      }
    });
  }

  it('slopes are the derivatives of the values', () => {
    const h = 1e-5;
    for (const kind of ACTIVATION_KINDS) {
      for (const x of [-7.3, -2.51, -2.49, -1, -0.2, 0.3, 1, 2.4, 3.6, 9]) {
        const f = ACTIVATIONS[kind];
        expect(ACTIVATION_SLOPES[kind](x), `${kind} at ${x}`).to.be.closeTo((f(x + h) - f(x - h)) / (2 * h), 1e-8);
      }
    }
  });

  it('erf to 1e-14, in f64', () => {
    const folder = join(ROOT, 'test', 'golden', 'ops');
    const { cases } = JSON.parse(readFileSync(join(folder, 'erf.json'), 'utf8')) as { cases: { erf: { absolute: number } } };
    using file = SafetensorsFile.open(join(folder, 'erf.safetensors'));
    const f64 = (name: string): Float64Array => new Float64Array(file.read(name).bytes.slice().buffer);
    const [x, y] = [f64('erf.x'), f64('erf.y')];
    expect(x.length).to.equal(241);
    for (let i = 0; i < x.length; i++) expect(Math.abs(erf(x[i]!) - y[i]!), `erf(${x[i]!})`).to.be.at.most(cases.erf.absolute);
  });

  it('erf at its ends: odd, signed zero, infinities, not a number', () => {
    expect(Object.is(erf(-0), -0)).to.be.true;
    expect(erf(Infinity)).to.equal(1);
    expect(erf(-Infinity)).to.equal(-1);
    expect(erf(NaN)).to.be.NaN;
    expect(erf(1e-300)).to.be.closeTo((2 / Math.sqrt(Math.PI)) * 1e-300, 1e-310);
    for (const x of [0.1, 2.4999999, 2.5, 5.99]) expect(erf(-x)).to.equal(-erf(x));
  });

  it('names that are no activation are unknown', () => {
    for (const name of ['selu', '', 'constructor', '__proto__']) expect(activationKind(name)).to.equal(undefined);
  });
});
