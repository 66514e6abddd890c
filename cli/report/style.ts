/** The look of a report. Colours are variables: light by default, dark where the system or the button asks for it. */

const LIGHT = `color-scheme:light;--bg:#fff;--fg:#1b2330;--muted:#5a6473;--grid:#e4e7ec;--line:#cbd1da;--soft:#f4f6f9;--focus:#1a56c4;
--c0:#2f62c9;--c1:#b0540a;--c2:#0b8084;--c3:#b02f86;--c4:#44801f;--c5:#7547c9;--c6:#8a5636;--c7:#566273;
--h0:#edf1f7;--h1:#cfdcf0;--h2:#a8c3e8;--h3:#7aa3dc;--h4:#4c7fcc;--h5:#2a5bab;--h6:#153a7a`;
const DARK = `color-scheme:dark;--bg:#12161d;--fg:#e6eaf0;--muted:#a3adbb;--grid:#28303b;--line:#3b4553;--soft:#1a2029;--focus:#8ab4ff;
--c0:#7fabff;--c1:#f2a35c;--c2:#4fd0c8;--c3:#f08ac9;--c4:#9ed672;--c5:#bb9eff;--c6:#d9a787;--c7:#b3bdca;
--h0:#1f2733;--h1:#233a5c;--h2:#2b5287;--h3:#3a6eb3;--h4:#5b92d8;--h5:#92bdf2;--h6:#d3e6ff`;

export const STYLE = `
:root{${LIGHT}}
@media (prefers-color-scheme:dark){:root{${DARK}}}
:root[data-theme=light]{${LIGHT}}
:root[data-theme=dark]{${DARK}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1160px;padding:1.5rem 1rem 3rem;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
header{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center;justify-content:space-between}
h1{font-size:1.5rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.5rem 0 .25rem;overflow-wrap:anywhere}
p{margin:.25rem 0 .75rem;max-width:95ch;color:var(--muted)}
a{color:var(--focus)}
dl{display:flex;flex-wrap:wrap;gap:.5rem 2rem;margin:1.25rem 0}
dt{color:var(--muted);font-size:.85rem}
dd{margin:0;font-size:1.1rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
nav ul,.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;margin:.75rem 0;padding:0}
.legend li{display:flex;align-items:center;gap:.4rem;font-size:.9rem}
button{font:inherit;color:var(--fg);background:var(--soft);border:1px solid var(--line);border-radius:6px;padding:.3rem .8rem;cursor:pointer}
:focus-visible{outline:2px solid var(--focus);outline-offset:2px}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:1rem 1.5rem;margin:.75rem 0}
figure{margin:0;min-width:0}
figure.wide{grid-column:1/-1}
figcaption{font-size:.9rem;overflow-wrap:anywhere}
figure>svg{display:block;max-width:100%;height:auto}
.scroll{overflow:auto}
.plot svg{display:block}
.plot text{paint-order:stroke}
.table{max-height:34rem;border:1px solid var(--line);border-radius:6px;margin:.75rem 0}
table{border-collapse:separate;border-spacing:0;font-size:.85rem;width:100%}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:.25rem .6rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--grid)}
th{position:sticky;top:0;background:var(--soft);font-weight:600}
.n{text-align:right;font-variant-numeric:tabular-nums}
th button{all:unset;cursor:pointer;font:inherit}
th button:focus-visible{outline:2px solid var(--focus);outline-offset:2px}
th button::after{content:"";display:inline-block;width:1em;text-align:center}
th[aria-sort=ascending] button::after{content:"\\2191"}
th[aria-sort=descending] button::after{content:"\\2193"}
tbody tr:hover{background:var(--soft)}
footer{margin-top:3rem;color:var(--muted);font-size:.85rem}
@media print{.scroll{overflow:visible;max-height:none}button{display:none}}
`;
