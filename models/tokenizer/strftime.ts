/** Python's datetime.strftime in the C locale, for the directives that chat templates use; others are left as they are. */

const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];

const padded = (n: number, width: number): string => String(n).padStart(width, '0');

const DIRECTIVES: Readonly<Record<string, (d: Date) => string>> = {
  Y: (d) => String(d.getFullYear()),
  y: (d) => padded(d.getFullYear() % 100, 2),
  m: (d) => padded(d.getMonth() + 1, 2),
  d: (d) => padded(d.getDate(), 2),
  H: (d) => padded(d.getHours(), 2),
  I: (d) => padded(d.getHours() % 12 || 12, 2),
  M: (d) => padded(d.getMinutes(), 2),
  S: (d) => padded(d.getSeconds(), 2),
  p: (d) => (d.getHours() < 12 ? 'AM' : 'PM'),
  B: (d) => MONTHS[d.getMonth()]!,
  b: (d) => MONTHS[d.getMonth()]!.slice(0, 3),
  A: (d) => DAYS[d.getDay()]!,
  a: (d) => DAYS[d.getDay()]!.slice(0, 3),
  j: (d) => padded(Math.round((Date.UTC(d.getFullYear(), d.getMonth(), d.getDate()) - Date.UTC(d.getFullYear(), 0, 0)) / 86400000), 3),
  '%': () => '%',
};

/** `%-d` is `%d` without its leading zeros. Times are local. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)([A-Za-z%])/g, (all, dash: string, letter: string) => {
    const text = DIRECTIVES[letter]?.(date);
    if (text === undefined) return all;
    return dash === '' ? text : text.replace(/^0+(?=.)/, '');
  });
}
