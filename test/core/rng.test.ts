import { expect } from 'chai';
import { Rng } from '../../core/rng.js';

describe('core/rng', () => {
  it('is Philox4x32-10: the known answers of the authors (Random123)', () => {
    const zero = new Rng([0, 0]);
    expect([zero.uint32(), zero.uint32(), zero.uint32(), zero.uint32()]).to.deep.equal([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  });

  it('forks by label and gives the same stream again', () => {
    const a = new Rng(7).fork('w').normals(16);
    expect([...a]).to.deep.equal([...new Rng(7).fork('w').normals(16)]);
    expect([...a]).to.not.deep.equal([...new Rng(7).fork('v').normals(16)]);
    expect([...a]).to.not.deep.equal([...new Rng(8).fork('w').normals(16)]);
  });

  it('normals have mean 0 and variance 1', () => {
    const x = new Rng(1).normals(100_000);
    const mean = x.reduce((s, v) => s + v, 0) / x.length;
    const variance = x.reduce((s, v) => s + (v - mean) ** 2, 0) / x.length;
    expect(Math.abs(mean)).to.be.lessThan(0.015);
    expect(Math.abs(variance - 1)).to.be.lessThan(0.02);
  });
});
