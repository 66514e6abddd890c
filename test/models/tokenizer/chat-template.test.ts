/** Chat templates: what transformers renders, its masks, and masks where the template has none. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Message } from '../../../core/text-row.js';
import { encodeChat } from '../../../models/tokenizer/encode-chat.js';
import { strftime } from '../../../models/tokenizer/strftime.js';
import { Tokenizer } from '../../../models/tokenizer/tokenizer.js';
import { errorOf, expectCode } from '../../support/expect-error.js';
import { ROOT } from '../../support/files.js';
import { readGolden, tinyTokenizer as tokenizer } from '../../support/tokenizers.js';

interface Golden {
  readonly templates: Readonly<Record<string, string>>;
  readonly chats: Readonly<Record<string, readonly Message[]>>;
  readonly tools: unknown;
  readonly dates: readonly (readonly [time: string, format: string, text: string])[];
  readonly cases: readonly {
    readonly template: string;
    readonly chat: string;
    readonly addGenerationPrompt: boolean;
    readonly tools?: true;
    readonly text?: string;
    readonly error?: string;
    readonly ids?: readonly number[];
    readonly mask?: readonly number[];
  }[];
}

const golden = JSON.parse(readFileSync(join(ROOT, 'test', 'golden', 'chat-template.json'), 'utf8')) as Golden;
describe('models/tokenizer chat templates', () => {
  for (const [name, template] of Object.entries(golden.templates)) {
    it(`${name}: the text, ids and masks of transformers`, async () => {
      const tk = tokenizer(template);
      for (const c of golden.cases.filter((k) => k.template === name)) {
        const options = { addGenerationPrompt: c.addGenerationPrompt, ...(c.tools === true ? { variables: { tools: golden.tools } } : {}) };
        const messages = golden.chats[c.chat]!;
        if (c.error !== undefined) expect((await errorOf(() => tk.applyChatTemplate(messages, options))).message).to.contain(c.error);
        else expect(tk.applyChatTemplate(messages, options), c.chat).to.equal(c.text);
        if (c.ids === undefined) continue;
        const { ids, train } = encodeChat(tk, messages);
        expect([...ids], c.chat).to.deep.equal(c.ids);
        expect([...train], c.chat).to.deep.equal(c.mask);
      }
    });
  }

  it('dates as Python writes them', () => {
    for (const [time, format, text] of golden.dates) expect(strftime(new Date(time), format)).to.equal(text);
    expect(
      tokenizer('{{ strftime_now("%d %b %Y") }}')
        .chat()
        .render([], { now: new Date(2024, 6, 26) }).text,
    ).to.equal('26 Jul 2024');
  });

  it('without marks, an assistant turn is what it adds to the conversation before it', () => {
    const tk = tokenizer(golden.templates['chatml']);
    const trained = (messages: readonly Message[]): string => {
      const { ids, train } = encodeChat(tk, messages);
      return tk.decode([...ids].filter((_, i) => train[i] === 1));
    };
    expect(trained(golden.chats['two']!)).to.equal('Hello! \u{1f400} caf\u00e9<|im_end|>\n');
    expect(trained(golden.chats['long']!)).to.equal('b<|im_end|>\nHe has 12 + 7 = 19 cows.<|im_end|>\n');
    expect(trained(golden.chats['one']!)).to.equal('');
  });

  it('a token across the boundary is trained: it holds some of the answer', () => {
    const tk = tokenizer('{% for m in messages %}{{ m.content }}{% endfor %}');
    // "ing" is one token, " fox" another
    const { ids, train } = encodeChat(tk, [
      { role: 'user', content: 'walki' },
      { role: 'assistant', content: 'ng home' },
    ]);
    const trained = tk.decode([...ids].filter((_, i) => train[i] === 1));
    expect(trained.endsWith('ng home')).to.equal(true);
    expect(trained).to.not.equal('ng home');
  });

  it('a template that changes earlier turns cannot be masked without marks', async () => {
    const template = '{% for m in messages %}{% if loop.last or m.role == "user" %}{{ m.content }}{% endif %}{% endfor %}';
    const error = await expectCode('CHAT_TEMPLATE', () => encodeChat(tokenizer(template), golden.chats['long']!));
    expect(error.message).to.contain('turn 2').and.to.contain('{% generation %}');
    await expectCode('CHAT_TEMPLATE', () => encodeChat(tokenizer(golden.templates['chatml']), [{ role: 'assistant', content: 'x' }]));
  });

  it('refusals, bad templates and none at all are named', async () => {
    await expectCode('CHAT_TEMPLATE', () => tokenizer('{% if %}').applyChatTemplate([{ role: 'user', content: 'x' }]));
    await expectCode('CHAT_TEMPLATE', () => tokenizer('{{ raise_exception("no") }}').applyChatTemplate([{ role: 'user', content: 'x' }]));
    const loop = '{% for m in messages %}{{ m.role }}{% if loop.first %}{% break %}{% endif %}{% endfor %}';
    expect((await expectCode('CHAT_TEMPLATE', () => tokenizer(loop).chat())).message).to.contain('break or continue after output');
    const bare = tokenizer();
    expect(bare.hasChatTemplate).to.equal(false);
    expect((await expectCode('CHAT_TEMPLATE', () => bare.applyChatTemplate([]))).exitCode).to.equal(65);
  });

  it("the file's template comes before the configuration's; named ones beside it", () => {
    const named = [{ name: 'default', template: 'D' }, { name: 'tools', template: 'T' }]; // prettier-ignore
    const files = { source: 'x', tokenizer: readGolden('llama3').tokenizer, config: { chat_template: named } };
    expect(new Tokenizer(files).applyChatTemplate([])).to.equal('D');
    expect(new Tokenizer({ ...files, chatTemplate: 'F' }).applyChatTemplate([])).to.equal('F');
    expect(new Tokenizer({ ...files, chatTemplate: 'F' }).chat('tools').render([]).text).to.equal('T');
  });
});
