"""Writes test/golden/chat-template.json: conversations as transformers renders them with chat templates of the published styles.

    pip install transformers==5.23.0 jinja2==3.1.6
    python scripts/golden/chat-template.py test/golden/chat-template.json

The templates are small ones of our own in the style of ChatML, Llama 3, Gemma, Mistral and others. Text, ids and masks are compared exactly.
"""
import datetime, json, os, sys
import jinja2, transformers
from transformers import AutoTokenizer

root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
tok = AutoTokenizer.from_pretrained(os.path.join(root, "examples/tiny/base"))

TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "chatml-system": "{% for message in messages %}\n    {% if loop.first and messages[0]['role'] != 'system' %}\n<|im_start|>system\nYou are helpful.<|im_end|>\n    {% endif %}\n<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}\n{%- if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}\n",
    "llama3": "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- set date_string = '26 Jul 2024' %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}\n{{- 'Today Date: ' + date_string + '\\n\\n' }}\n{{- system_message }}\n{{- '<|eot_id|>' }}\n{%- for message in messages %}\n    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}",
    "mistral": "{%- if messages[0][\"role\"] == \"system\" %}\n    {%- set system_message = messages[0][\"content\"] %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n{%- set ns = namespace(index=0) %}\n{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if message[\"role\"] == \"user\" %}\n        {%- if tools is not none and loop.last %}\n            {{- \"[AVAILABLE_TOOLS] \" }}{{ tools | tojson }}{{- \"[/AVAILABLE_TOOLS]\" }}\n        {%- endif %}\n        {%- if loop.last and system_message is defined %}\n            {{- \"[INST] \" + system_message + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" }}\n        {%- else %}\n            {{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}\n        {%- endif %}\n        {%- set ns.index = ns.index + 1 %}\n    {%- elif message[\"role\"] == \"assistant\" %}\n        {{- \" \" + message[\"content\"]|trim + eos_token }}\n    {%- else %}\n        {{- raise_exception(\"Only user and assistant roles are supported, with the exception of an initial optional system message!\") }}\n    {%- endif %}\n{%- endfor %}\n",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "thinking": "{%- macro turn(role, text) -%}\n<|im_start|>{{ role }}\n{{ text }}<|im_end|>\n{% endmacro -%}\n{%- for message in messages -%}\n{%- if message.reasoning_content is defined and loop.last -%}\n{{ turn(message.role, '<think>' ~ message.reasoning_content ~ '</think>' ~ message.content) }}\n{%- else -%}\n{%- set text = message.content.split('</think>')[-1].lstrip('\\n') -%}\n{{ turn(message.role, text) }}\n{%- endif -%}\n{%- endfor -%}",
    "loops": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %}{{ loop.index }}/{{ messages | length }} {{ m.content | upper }}\n{% endfor %}{{ '..x.y..'.strip('.') }}{{ '  a '.rstrip() }}{{ 'aab'.lstrip('ab') }}|{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{% for k, v in {'a': 1, 'b': [1.5, none, true, 'x\"<>&é']}.items() %}{{ k }}={{ v | tojson }};{% endfor %}{{ {'x': {'y': []}} | tojson(indent=2) }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | map(attribute='role') | join(',') }}",
    "scopes": "{% set x = 'o' %}{% for m in messages %}{{ x }}{% if m.role == 'user' %}{% set x = 'u' %}{% set y = m.content %}{% endif %}{{ x }}{{ 1 if y is defined else 0 }}{% for i in range(2) %}{{ 1 if z is defined else 0 }}{{ x }}{% set z = i %}{% set x = z %}{% endfor %}{{ x }}|{% endfor %}{{ x }}{{ 1 if y is defined else 0 }}{% macro f(a) %}{% for i in a %}{{ 1 if w is defined else 0 }}{% set w = 1 %}{% endfor %}{% endmacro %}{{ f([1, 2]) }}{% set ns = namespace(n=0) %}{% for i in [1, 2, 3] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "generation": "{% for message in messages %}{% if message['role'] == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}\n\n{% else %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "generation-control": "{%- for message in messages %}\n    {%- if message['role'] == 'assistant' %}\n        {{- 'A: ' }}\n        {%- generation -%}\n        {{ message['content'] }}{{ eos_token }}\n        {%- endgeneration -%}\n    {%- else %}\n        {{- 'U: ' + message['content'] + '\\n' }}\n    {%- endif %}\n{%- endfor %}",
    "generation-lines": "{% for message in messages %}\n  {% if message.role == 'assistant' %}\nA:\n  {% generation %}\n{{ message.content }}\n  {% endgeneration %}\n  {% else %}\nU: {{ message.content }}\n  {% endif %}\n{% endfor %}",
}
CHATS = {
    "one": [{"role": "user", "content": "How many cows does he have?"}],
    "two": [{"role": "user", "content": " Hi there "}, {"role": "assistant", "content": "Hello! \U0001f400 caf\u00e9"}],
    "system": [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "\n4"}, {"role": "user", "content": "And 3+3?\n"}],
    "long": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "He has 12 + 7 = 19 cows."}],
    "reasoning": [{"role": "user", "content": "a", "name": None}, {"role": "assistant", "content": "b", "reasoning": "because", "tool_calls": None}],
    "quotes": [{"role": "user", "content": "\"x\" <b>&amp;</b> {{ not }} {% a %} \\n"}, {"role": "assistant", "content": ""}],
}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d\u00e9j\u00e0 \"vu\"", "parameters": {"type": "object", "properties": {"x": {"type": "number"}}}}}]


def run(template, chat, **k):
    try:
        return {"text": tok.apply_chat_template(chat, chat_template=template, tokenize=False, **k)}
    except jinja2.exceptions.TemplateError as e:
        return {"error": str(e)}


cases = []
for name, template in TEMPLATES.items():
    for chat, messages in CHATS.items():
        for prompt in (False, True):
            row = {"template": name, "chat": chat, "addGenerationPrompt": prompt, **run(template, messages, add_generation_prompt=prompt)}
            if "generation" in name and not prompt:
                enc = tok.apply_chat_template(messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True)
                row.update(ids=enc["input_ids"], mask=enc["assistant_masks"])
            cases.append(row)
    cases.append({"template": name, "chat": "one", "addGenerationPrompt": True, "tools": True, **run(template, CHATS["one"], add_generation_prompt=True, tools=TOOLS)})
dates = [[t, f, datetime.datetime.fromisoformat(t).strftime(f)] for t in ("2024-07-06T05:04:03", "2025-12-31T23:59:58", "2023-01-01T12:00:00") for f in ("%d %b %Y", "%B %-d, %Y", "%A %a %j %y", "%H:%M:%S %I:%M %p", "%Y-%m-%d 100%%")]
doc = {"versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__}, "script": "scripts/golden/chat-template.py", "folder": "examples/tiny/base",
       "templates": TEMPLATES, "chats": CHATS, "tools": TOOLS, "dates": dates}
with open(sys.argv[1], "w", encoding="utf-8") as f:
    f.write(json.dumps(doc)[:-1] + ', "cases": [\n' + ",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
print(len(cases), sum("error" in c for c in cases), os.path.getsize(sys.argv[1]))
