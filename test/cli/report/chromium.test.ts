/** Reports as a reader meets them: the shipped pair through the real binary, in a real browser, from a file. */
import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Page } from 'puppeteer-core';
import { diffPage } from '../../../cli/report/diff-page.js';
import { evalPage } from '../../../cli/report/eval-page.js';
import { renderPage } from '../../../cli/report/page.js';
import { rateDistortionPlot } from '../../../cli/report/rate-distortion.js';
import { describeInChromium, openFile } from '../../support/chromium.js';
import { pith } from '../../support/cli.js';
import { tempDir, TINY } from '../../support/files.js';
import { changed, diffReport, evalOutcome, EVIL, spectrumOf } from '../../support/reports.js';

/** The code that runs in the page; the compiler knows no DOM here, so it is text. */
const evaluate = <T>(page: Page, code: string): Promise<T> => page.evaluate(code) as Promise<T>;
const GROUND = 'getComputedStyle(document.body).backgroundColor';

/** WCAG contrast of all text in figures and on the page with the ground, the least of them. */
const LEAST_CONTRAST = `(() => {
  const luminance = (rgb) => {
    const [r, g, b] = rgb.match(/[\\d.]+/g).map((v) => { const c = v / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = luminance(${GROUND});
  const of = (color) => { const l = luminance(color); return (Math.max(l, ground) + 0.05) / (Math.min(l, ground) + 0.05); };
  const texts = [...document.querySelectorAll('svg text')].filter((t) => t.textContent !== '').map((t) => of(getComputedStyle(t).fill));
  const lines = [...document.querySelectorAll('svg .mark-line path')].map((t) => of(getComputedStyle(t).stroke));
  const page = [...document.querySelectorAll('p, dt, dd, td, h1, h2, figcaption, footer, a')].map((t) => of(getComputedStyle(t).color));
  return { count: texts.length + page.length, texts: Math.min(...texts, ...page), lines: Math.min(9, ...lines) };
})()`;

describeInChromium('cli/report', (browser) => {
  let dir: ReturnType<typeof tempDir> | undefined;
  const files: Record<string, string> = {};
  before(async () => {
    const { path } = (dir = tempDir());
    const run = (name: string, args: string[]): void => {
      files[name] = join(path, `${name}.html`);
      const r = pith([...args, '--report', files[name]]);
      expect(r.code, r.stderr).to.equal(0);
    };
    run('diff', ['diff', join(TINY, 'base'), join(TINY, 'tuned'), '--spectrum']);
    run('inspect', ['inspect', join(TINY, 'base'), '--spectrum']);
    const write = (name: string, page: string): void => writeFileSync((files[name] = join(path, `${name}.html`)), page);
    write('hostile', await diffPage(diffReport(40, [changed(EVIL, 0.5, { spectrum: spectrumOf([3, 2, 1]) })])));
    write('eval', await evalPage(evalOutcome(EVIL, true)));
    // one of each colour
    const lossy = Array.from({ length: 7 }, (_, i) => ({ name: `method ${i}`, points: [1, 2, 4].map((k) => ({ ratio: 0.01 * k, error: (1 + i / 10) / k })) }));
    const series = [...lossy, { name: 'lossless', points: [{ ratio: 0.3, error: 0 }] }];
    write('frontier', renderPage({ title: 'frontier', sections: [await rateDistortionPlot(series)] }));
  });
  after(() => dir?.[Symbol.dispose]());

  for (const name of ['diff', 'inspect', 'hostile', 'eval', 'frontier']) {
    for (const scheme of ['light', 'dark'] as const) {
      it(`${name}: nothing complains, nothing is asked for, all is readable: ${scheme}`, async () => {
        await using open = await openFile(browser(), files[name]!, { scheme });
        const { page, complaints, requests } = open;
        expect(complaints).to.deep.equal([]);
        // the page itself, and its empty icon where a browser asks for one
        expect(requests.filter((url) => !url.startsWith('data:'))).to.deep.equal([pathToFileURL(files[name]!).href]);
        expect(await evaluate(page, GROUND)).to.equal(scheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(18, 22, 29)');
        const least = await evaluate<{ count: number; texts: number; lines: number }>(page, LEAST_CONTRAST);
        expect(least.count).to.be.greaterThan(10);
        expect(least.texts).to.be.at.least(4.5);
        expect(least.lines).to.be.at.least(3);
      });
    }

    it(`${name}: 360 px wide the page does not overflow; what is wider scrolls by itself`, async () => {
      await using open = await openFile(browser(), files[name]!, { width: 360 });
      const { page } = open;
      expect(await evaluate(page, 'document.documentElement.scrollWidth')).to.equal(360);
      const wide = await evaluate<{ over: boolean; focusable: boolean }[]>(
        page,
        `[...document.querySelectorAll('.scroll')].map((n) => ({ over: n.scrollWidth > n.clientWidth, focusable: n.tabIndex === 0 }))`,
      );
      expect(wide.some((n) => n.over)).to.equal(true);
      expect(wide.every((n) => n.focusable)).to.equal(true);
    });
  }

  it('every figure has a name in the accessibility tree and lies within its picture', async () => {
    await using open = await openFile(browser(), files['diff']!);
    const { page } = open;
    const images = await evaluate<string[]>(page, `[...document.querySelectorAll('svg[role=img]')].map((n) => n.getAttribute('aria-label'))`);
    expect(images).to.have.length.greaterThan(15);
    const tree = JSON.stringify(await page.accessibility.snapshot({ interestingOnly: false }));
    for (const label of images) expect(tree).to.contain(JSON.stringify(label));
    const outside = await evaluate<string[]>(
      page,
      `[...document.querySelectorAll('main svg[role=img]')].flatMap((svg) => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('text')].filter((t) => {
          const b = t.getBoundingClientRect();
          return b.width > 0 && (b.left < box.left - 2 || b.right > box.right + 2 || b.top < box.top - 2 || b.bottom > box.bottom + 2);
        }).map((t) => t.textContent);
      })`,
    );
    expect(outside).to.deep.equal([]);
  });

  it('the button changes the colours by keyboard, both ways', async () => {
    await using open = await openFile(browser(), files['diff']!, { scheme: 'dark' });
    const { page, complaints } = open;
    const dark = await evaluate(page, GROUND);
    await page.keyboard.press('Tab');
    expect(await evaluate(page, 'document.activeElement.textContent')).to.equal('Light colours');
    expect(await evaluate(page, `getComputedStyle(document.activeElement).outlineStyle`)).to.equal('solid');
    await page.keyboard.press('Enter');
    expect(await evaluate(page, GROUND)).to.equal('rgb(255, 255, 255)');
    expect(await evaluate(page, 'document.activeElement.textContent')).to.equal('Dark colours');
    await page.keyboard.press('Space');
    expect(await evaluate(page, GROUND)).to.equal(dark);
    expect(complaints).to.deep.equal([]);
  });

  it('tables sort by Enter on a heading: numbers by value, empty cells last, back again', async () => {
    await using open = await openFile(browser(), files['diff']!);
    const { page } = open;
    const TABLE = `[...document.querySelectorAll('table')].at(-1)`;
    const column = (i: number): Promise<string[]> => evaluate(page, `[...${TABLE}.tBodies[0].rows].map((r) => r.cells[${i}].dataset.v ?? r.cells[${i}].textContent)`); // prettier-ignore
    const sortState = (): Promise<(string | null)[]> => evaluate(page, `[...${TABLE}.tHead.rows[0].cells].map((c) => c.getAttribute('aria-sort'))`);
    const before = await column(4);
    expect(before).to.have.length(38);
    await evaluate(page, `${TABLE}.querySelectorAll('th button')[3].focus()`);
    await page.keyboard.press('Tab');
    expect(await evaluate(page, 'document.activeElement.textContent')).to.equal('changed');
    await page.keyboard.press('Enter');
    const falling = [...before].sort((a, b) => Number(b) - Number(a));
    expect(before).to.not.deep.equal(falling);
    expect(await column(4)).to.deep.equal(falling);
    expect((await sortState())[4]).to.equal('descending');
    await page.keyboard.press('Enter');
    expect(await column(4)).to.deep.equal([...falling].reverse());
    // effective ranks are only of matrices
    await evaluate(page, `${TABLE}.querySelectorAll('th button')[7].focus()`);
    await page.keyboard.press('Enter');
    const ranks = await column(7);
    expect(ranks.filter((v) => v === '')).to.have.length(9);
    expect(ranks.slice(29).every((v) => v === '')).to.equal(true);
    expect(await sortState()).to.deep.equal([null, null, null, null, null, null, null, 'descending', null, null, null, null]);
    await evaluate(page, `${TABLE}.querySelectorAll('th button')[0].focus()`);
    await page.keyboard.press('Enter');
    const names = await column(0);
    expect(names).to.deep.equal([...names].sort((a, b) => a.localeCompare(b, 'en', { numeric: true })));
  });

  it('without scripts everything is there, and no button that does nothing', async () => {
    await using scripted = await openFile(browser(), files['diff']!);
    await using open = await openFile(browser(), files['diff']!, { scripts: false });
    const count = `[document.querySelectorAll('svg').length, document.querySelectorAll('tr').length, document.querySelector('main').innerText.length]`;
    expect(await evaluate(open.page, count)).to.deep.equal(await evaluate(scripted.page, count));
    expect(await evaluate(open.page, `[...document.querySelectorAll('button')].filter((b) => b.offsetParent !== null).length`)).to.equal(0);
  });

  it('names from files run nothing', async () => {
    await using open = await openFile(browser(), files['hostile']!);
    expect(open.complaints).to.deep.equal([]);
    expect(await evaluate(open.page, `document.querySelectorAll('img, script').length`)).to.equal(1);
    expect(await evaluate(open.page, `[...document.querySelectorAll('td')].some((c) => c.textContent === ${JSON.stringify(EVIL)})`)).to.equal(true);
    // and what would slip through is refused by the page's own policy
    await evaluate(open.page, `document.body.insertAdjacentHTML('beforeend', '<img src="data:,x" onerror="window.ran = true">')`);
    await evaluate(open.page, 'new Promise((resolve) => setTimeout(resolve, 100))');
    expect(await evaluate(open.page, 'window.ran')).to.equal(undefined);
  });
});
