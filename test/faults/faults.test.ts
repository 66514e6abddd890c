/** Every write, fsync, rename, read and open fails once, for n = 1, 2, ... until none is left to fail. */
import { expect } from 'chai';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pith } from '../support/cli.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';

const FAULTS = ['write:ENOSPC', 'fsync:EIO', 'rename:EIO', 'read:EIO', 'read:short', 'open:EACCES', 'mkdir:ENOSPC'];

describe('faults', function () {
  this.timeout(600_000);

  for (const fault of FAULTS) {
    const [op, kind] = fault.split(':') as [string, string];
    it(`${op} fails with ${kind}, at every place`, () => {
      using dir = tempDir();
      const p = (name: string): string => join(dir.path, name);
      const w = (seed: number): Uint8Array => Uint8Array.from({ length: 600 }, (_, i) => (i * 7 + (i % 3 === 0 ? seed : 0)) & 63);
      for (const [name, seed] of [
        ['base', 0],
        ['tuned', 1],
      ] as const)
        writeSafetensors(p(`${name}.safetensors`), [{ name: 'w', dtype: 'BF16', shape: [30, 10], bytes: w(seed) }]);
      const encode = ['delta', 'encode', '--base', p('base.safetensors'), '--tuned', p('tuned.safetensors'), '--out', p('d.safetensors'), '-j', '1'];
      const restore = ['delta', 'restore', '--base', p('base.safetensors'), '--delta', p('d.safetensors'), '--out', p('r.safetensors'), '-j', '1'];
      expect(pith(encode).code).to.equal(0);
      const delta = readFileSync(p('d.safetensors'));
      for (const [args, out, right] of [
        [encode, p('d.safetensors'), delta],
        [restore, p('r.safetensors'), readFileSync(p('tuned.safetensors'))],
      ] as const) {
        if (out === p('d.safetensors')) rmSync(out);
        let fired = 0;
        for (let n = 1; ; n++) {
          const r = pith(args, { env: { PITH_FAULT: `${op}:${n}:${kind}` } });
          if (r.code === 0) {
            expect(Buffer.compare(readFileSync(out), right)).to.equal(0);
            break;
          }
          fired++;
          expect([65, 73, 74], `${op}:${n} ${r.stderr}`).to.include(r.code);
          expect(r.stderr).to.match(/^error: /);
          // a fault after the rename leaves the whole file, any other leaves none
          if (existsSync(out)) expect(Buffer.compare(readFileSync(out), right), `${op}:${n}`).to.equal(0);
          if (existsSync(out)) rmSync(out);
          const again = pith(args);
          expect(again.code, `after ${op}:${n}: ${again.stderr}`).to.equal(0);
          expect(Buffer.compare(readFileSync(out), right)).to.equal(0);
          rmSync(out);
          expect(
            Object.keys(hashTree(dir.path)).filter((f) => /partial|tmp/.test(f)),
            `${op}:${n}`,
          ).to.deep.equal([]);
        }
        expect(fired, 'the fault fired at least once').to.be.greaterThan(0);
      }
    });
  }
});
