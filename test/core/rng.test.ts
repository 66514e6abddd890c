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

  it('signs: only +1 and -1, balanced, the same for a seed, every word of bits used once', () => {
    const a = new Rng(4).signs(10_007);
    expect(a.every((v) => v === 1 || v === -1)).to.equal(true);
    expect(Math.abs(a.reduce((sum, v) => sum + v, 0))).to.be.lessThan(500);
    expect(Array.from(new Rng(4).signs(10_007))).to.deep.equal(Array.from(a));
    expect(Array.from(new Rng(5).signs(64))).to.not.deep.equal(Array.from(a.subarray(0, 64)));
    const bits = new Rng(4).uint32();
    for (let i = 0; i < 32; i++) expect(a[i]).to.equal((bits >>> i) & 1 ? -1 : 1);
  });
});
