/** The registry, the files and docs/methods.md say the same. */
import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { methodsPage } from '../../cli/methods-page.js';
import { KINDS, listMethods, loadMethod, methodNames } from '../../methods/index.js';
import { ROOT } from '../support/files.js';

describe('methods: registry', () => {
  for (const kind of KINDS) {
    it(`${kind}: one file for every name, one name for every file`, async () => {
      const files = readdirSync(join(ROOT, 'methods', kind)).map((f) => f.replace(/\.ts$/, ''));
      expect([...methodNames(kind)].sort()).to.deep.equal(files.sort());
      for (const name of methodNames(kind)) {
        const m = await loadMethod(kind, name);
        expect([m.kind, m.name]).to.deep.equal([kind, name]);
      }
    });
  }

  it('every parameter is described', async () => {
    for (const m of await listMethods()) {
      const { properties = {} } = z.toJSONSchema(m.params) as { properties?: Record<string, { description?: string }> };
      for (const [name, p] of Object.entries(properties)) expect(p.description, `${m.name} ${name}`).to.be.a('string');
    }
  });

  it('docs/methods.md is up to date', async () => {
    expect(readFileSync(join(ROOT, 'docs', 'methods.md'), 'utf8')).to.equal(await methodsPage());
  });
});
