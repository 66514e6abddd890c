/** Every write, fsync, rename, read and open of a store's commands fails once, for n = 1, 2, ...: nothing is lost, and the same command again completes. */
import { expect } from 'chai';
import { cpSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pith } from '../support/cli.js';
import { tempDir, writeSafetensors } from '../support/files.js';

const FAULTS = ['write:ENOSPC', 'fsync:EIO', 'rename:EIO', 'read:EIO', 'open:EACCES', 'mkdir:ENOSPC'];

describe('faults of a store', function () {
  this.timeout(900_000);

  for (const fault of FAULTS) {
    const [op, kind] = fault.split(':') as [string, string];
    it(`${op} fails with ${kind}, at every place of an add`, () => {
      using dir = tempDir();
      const p = (name: string): string => join(dir.path, name);
      const w = (seed: number): Uint8Array => Uint8Array.from({ length: 600 }, (_, i) => (i * 7 + (i % 3 === 0 ? seed : 0)) & 63);
      for (const [name, seed] of [
        ['a', 0],
        ['b', 1],
      ] as const)
        writeSafetensors(p(`${name}.safetensors`), [{ name: 'w', dtype: 'BF16', shape: [30, 10], bytes: w(seed) }]);
      expect(pith(['store', 'init', p('prepared')]).code).to.equal(0);
      expect(pith(['store', 'add', p('prepared'), p('a.safetensors')]).code).to.equal(0);
      const add = ['store', 'add', p('s'), p('b.safetensors'), '-j', '1'];
      let fired = 0;
      for (let n = 1; ; n++) {
        rmSync(p('s'), { recursive: true, force: true });
        cpSync(p('prepared'), p('s'), { recursive: true });
        const r = pith(add, { env: { PITH_FAULT: `${op}:${n}:${kind}` } });
        if (r.code === 0) break;
        fired++;
        expect([65, 66, 73, 74], `${op}:${n} ${r.stderr}`).to.include(r.code);
        expect(r.stderr).to.match(/^error: /);
        // a fault after the record's name leaves the whole model
        const again = pith(add);
        expect(again.code, `after ${op}:${n}: ${again.stderr}`).to.equal(readdirSync(join(p('s'), 'models')).length === 2 && again.code === 73 ? 73 : 0);
        // b is coded against a: with it both are there
        expect(pith(['store', 'get', p('s'), 'b', '--out', p('r.safetensors'), '--force']).code).to.equal(0);
        expect(Buffer.compare(readFileSync(p('r.safetensors')), readFileSync(p('b.safetensors')))).to.equal(0);
      }
      expect(fired, 'the fault fired at least once').to.be.greaterThan(0);
    });
  }
});
