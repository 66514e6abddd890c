/** Part prefix of the rows that only the tuned tensor has (a grown vocabulary). */
export const EXTRA_ROWS = 'extra.';
