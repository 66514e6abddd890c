/** What a report's page runs: sorting of tables, light or dark. Everything is there without it. */
export const SCRIPT = `
'use strict';
(() => {
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');
  const button = document.getElementById('colours');
  const current = () => root.dataset.theme ?? (system.matches ? 'dark' : 'light');
  const other = () => (current() === 'dark' ? 'light' : 'dark');
  const show = () => { button.textContent = other() === 'dark' ? 'Dark colours' : 'Light colours'; };
  button.addEventListener('click', () => { root.dataset.theme = other(); show(); });
  system.addEventListener('change', show);
  button.hidden = false;
  show();

  const key = (row, i) => { const c = row.cells[i]; return c.dataset.v === undefined ? c.textContent : Number(c.dataset.v); };
  const compare = (a, b) => {
    if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;
    return typeof a === 'number' ? a - b : a.localeCompare(b, 'en', { numeric: true });
  };
  const sort = (table, heads, i) => {
    const numeric = heads[i].classList.contains('n');
    const was = heads[i].getAttribute('aria-sort');
    const order = was === null ? (numeric ? 'descending' : 'ascending') : was === 'ascending' ? 'descending' : 'ascending';
    for (const h of heads) h.removeAttribute('aria-sort');
    heads[i].setAttribute('aria-sort', order);
    const sign = order === 'ascending' ? 1 : -1;
    const empty = (k) => (k === '' ? 1 : 0);
    const rows = Array.from(table.tBodies[0].rows, (row, at) => ({ row, at, k: key(row, i) }));
    rows.sort((a, b) => empty(a.k) - empty(b.k) || sign * compare(a.k, b.k) || a.at - b.at);
    table.tBodies[0].append(...rows.map((r) => r.row));
  };
  for (const table of document.querySelectorAll('table')) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((th, i) => {
      const b = document.createElement('button');
      b.type = 'button';
      b.append(...th.childNodes);
      b.addEventListener('click', () => sort(table, heads, i));
      th.append(b);
    });
  }
})();
`;
