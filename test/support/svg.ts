/** A small strict XML reader: enough to see that a figure or page is well formed and what is in it. */

export interface XmlNode {
  readonly tag: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: XmlNode[];
  text: string;
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"' };
const decode = (text: string): string =>
  text.replace(/&(?:#(x?)([0-9a-fA-F]+)|(\w+));?/g, (whole, hex: string | undefined, number: string | undefined, name: string | undefined) => {
    if (number !== undefined) return String.fromCodePoint(parseInt(number, hex === 'x' ? 16 : 10));
    const found = ENTITIES[name ?? ''];
    if (found === undefined) throw new Error(`entity ${whole}`);
    return found;
  });

/** Throws on anything but nested, closed, quoted XML. */
export function parseXml(text: string): XmlNode {
  const root: XmlNode = { tag: '', attributes: {}, children: [], text: '' };
  const open = [root];
  const token = /<(\/?)([a-zA-Z][\w:-]*)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>|([^<]+)/gy;
  while (token.lastIndex < text.length) {
    const at = token.lastIndex;
    const match = token.exec(text);
    if (match === null) throw new Error(`not XML at ${at}: ${text.slice(at, at + 80)}`);
    const [, closing, tag, attributes = '', empty, chars] = match;
    const top = open.at(-1)!;
    if (chars !== undefined) top.text += decode(chars);
    else if (closing === '/') {
      if (top.tag !== tag) throw new Error(`</${tag!}> closes <${top.tag}>`);
      open.pop();
    } else {
      const pairs = [...attributes.matchAll(/([\w:-]+)="([^"]*)"/g)].map(([, name, value]) => [name!, decode(value!)] as const);
      const node: XmlNode = { tag: tag!, attributes: Object.fromEntries(pairs), children: [], text: '' };
      top.children.push(node);
      if (empty !== '/') open.push(node);
    }
  }
  if (open.length !== 1 || root.children.length !== 1) throw new Error(`${open.length - 1} left open`);
  return root.children[0]!;
}

/** All nodes below, the node itself first. */
export function nodes(node: XmlNode): XmlNode[] {
  return [node, ...node.children.flatMap(nodes)];
}

export const texts = (node: XmlNode): string[] =>
  nodes(node)
    .filter((n) => n.tag === 'text')
    .map((n) => n.text);
export const tooltips = (node: XmlNode): string[] =>
  nodes(node)
    .filter((n) => n.tag === 'title')
    .map((n) => n.text);

/** The drawn marks of one kind: children of the groups that Vega calls `mark-<kind> role-mark ...`. */
export function marks(node: XmlNode, kind: string): XmlNode[] {
  return nodes(node)
    .filter((n) => new RegExp(`^mark-${kind} role-mark`).test(n.attributes['class'] ?? ''))
    .flatMap((n) => n.children);
}
