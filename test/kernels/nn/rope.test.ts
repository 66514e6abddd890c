/** Frequencies and tables of every scaling against transformers', through configs in both spellings. */
import { expect } from 'chai';
import { attentionFactor, inverseFrequencies, ropeLengthKey, ropeTables, type RopeParameters } from '../../../kernels/nn/rope.js';
import { requireCausalConfig } from '../../../models/config/parse.js';
import { maxDifference, opGolden } from '../../support/goldens.js';

interface Case {
  readonly kind: 'full' | 'sliding';
  readonly positions: readonly number[];
  readonly attentionFactor: number;
  readonly config: unknown;
  readonly old: unknown;
}

const golden = opGolden<Case>('rope');

describe('kernels/nn/rope', () => {
  for (const [name, c] of Object.entries(golden.document.cases)) {
    for (const [spelling, config] of [
      ['new', c.config],
      ['old', c.old],
    ] as const) {
      it(`${name}, ${spelling} spelling`, () => {
        const rope = requireCausalConfig(config, 'config.json').layers.find((l) => l.kind === c.kind)!.rope!;
        const tokens = Math.max(...c.positions) + 1;
        // the same bits: at position 4,095 one bit of a frequency is 2.4e-4 of an angle
        expect(inverseFrequencies(rope, tokens)).to.deep.equal(golden.tensor(`${name}.inverse`).values);
        expect(attentionFactor(rope)).to.be.closeTo(c.attentionFactor, 1e-12);
        const { cos, sin } = ropeTables(rope, c.positions);
        expect(maxDifference(cos, golden.tensor(`${name}.cos`).values)).to.be.lessThan(2e-7);
        expect(maxDifference(sin, golden.tensor(`${name}.sin`).values)).to.be.lessThan(2e-7);
      });
    }
  }

  it('tables depend on the length only where frequencies do', () => {
    const base = { theta: 1e4, rotaryDim: 4 };
    const dynamic: RopeParameters = { ...base, type: 'dynamic', factor: 2, maxPositions: 16 };
    expect([8, 16, 17].map((n) => ropeLengthKey(dynamic, n))).to.deep.equal([16, 16, 17]);
    expect(inverseFrequencies(dynamic, 8)).to.deep.equal(inverseFrequencies({ ...base, type: 'default' }, 8));
    const lists = { shortFactor: [1, 1], longFactor: [2, 4], originalMaxPositions: 16, factor: 2 };
    const longrope: RopeParameters = { ...base, type: 'longrope', ...lists };
    expect([16, 17, 99].map((n) => ropeLengthKey(longrope, n))).to.deep.equal([0, 1, 1]);
    const [short, long] = [inverseFrequencies(longrope, 16), inverseFrequencies(longrope, 17)];
    expect(long[1]! / short[1]!).to.be.closeTo(0.25, 1e-6);
    expect(ropeLengthKey({ ...base, type: 'default' }, 1e6)).to.equal(0);
    expect(attentionFactor({ ...longrope, factor: 1 })).to.equal(1);
  });

  it('no positions, no tables', () => expect(ropeTables({ type: 'default', theta: 1e4, rotaryDim: 4 }, []).cos.length).to.equal(0));
});
