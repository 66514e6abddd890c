/**
 * WikiText's raw files as lm-evaluation-harness reads them: a document for every page, its tokenization marks taken out; words and bytes are
 * counted in the page as it was. Source: lm_eval/tasks/wikitext/preprocess_wikitext.py (wikitext_detokenizer) and the loader of the data set
 * EleutherAI/wikitext_document_level (a line `= Title =` begins a page).
 */

/** Each line after the first with its line end before it, as there; the page before the first title is left out when it is blank. */
export function wikitextPages(text: string): string[] {
  const pages: string[] = [];
  let lines: string[] = [];
  for (const line of text.split('\n')) {
    const bare = line.replaceAll('= = =', '===').replaceAll('= =', '==').trim();
    if (bare.startsWith('= ') && bare.endsWith(' =')) {
      const page = lines.join('\n');
      if (page.trim() !== '') pages.push(page);
      lines = [];
    }
    lines.push(line);
  }
  return [...pages, lines.join('\n')];
}

const RULES: readonly (readonly [from: string | RegExp, to: string])[] = [
  ["s '", "s'"],
  [/\/' [0-9]\//g, "/'[0-9]/"],
  [' @-@ ', '-'],
  [' @,@ ', ','],
  [' @.@ ', '.'],
  [' : ', ': '],
  [' ; ', '; '],
  [' . ', '. '],
  [' ! ', '! '],
  [' ? ', '? '],
  [' , ', ', '],
  [/\(\s*([^)]*?)\s*\)/g, '($1)'],
  [/\[\s*([^\]]*?)\s*\]/g, '[$1]'],
  [/\{\s*([^}]*?)\s*\}/g, '{$1}'],
  [/"\s*([^"]*?)\s*"/g, '"$1"'],
  [/'\s*([^']*?)\s*'/g, "'$1'"],
  ['= = = =', '===='],
  ['= = =', '==='],
  ['= =', '=='],
  [' \u00b0 ', '\u00b0'],
  [' \n', '\n'],
  ['\n ', '\n'],
  [' N ', ' 1 '],
  [" 's", "'s"],
];

export function wikitextDetokenize(page: string): string {
  return RULES.reduce((text, [from, to]) => text.replaceAll(from, to), page);
}
