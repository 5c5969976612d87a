"""Holds tern serve against the OpenAI Python client and against raw bytes.

  check_serve.py MODEL --engine build/cpu/bin/tern-engine [--chat-template FILE]

Completions (text, ids, batches, echo, log probabilities, n, stop, stream), chat (whole, streamed,
usage, log probabilities), models, the typed errors of the client, 32 calls at once that must give
what one gives alone, and requests that no library would send. Exit 0 all hold, 4 one does not.
"""

import argparse
import asyncio
import math
import pathlib
import socket

import openai

import compare
from serve_process import Server

KEY = "correct horse"
GREEDY = {"temperature": 0, "max_tokens": 12}


class Check:
    def __init__(self):
        self.results = []

    def __call__(self, label, holds, detail=""):
        print(f"{'pass' if holds else 'FAIL'}  {label}{': ' if detail else ''}{detail}")
        self.results.append(bool(holds))

    def raises(self, label, kind, call, part=""):
        try:
            call()
        except kind as error:
            self(label, part in str(error), "" if part in str(error) else str(error))
        else:
            self(label, False, f"no {kind.__name__}")


def check_completions(check, client, model):
    create = client.completions.create
    whole = create(model=model, prompt="The king", **GREEDY)
    again = create(model=model, prompt="The king", **GREEDY)
    check("greedy text is the same again", whole.choices[0].text == again.choices[0].text)
    check("usage", whole.usage.completion_tokens <= 12 and whole.usage.prompt_tokens > 0)
    stream = list(create(model=model, prompt="The king", stream=True,
                         stream_options={"include_usage": True}, **GREEDY))  # fmt: skip
    text = "".join(choice.text for part in stream for choice in part.choices)
    check("stream gives the same text", text == whole.choices[0].text)
    check("stream ends with usage", stream[-1].usage == whole.usage)
    batch = create(model=model, prompt=["The king", "The queen"], **GREEDY)
    check("a batch gives each its own", batch.choices[0].text == whole.choices[0].text)
    scored = create(model=model, prompt=[[5, 6, 7], [8, 9]], echo=True, max_tokens=1, logprobs=1,
                    temperature=0, seed=1234)  # fmt: skip
    for choice, size in zip(scored.choices, (3, 2)):
        values = choice.logprobs.token_logprobs
        check(f"echo of {size} tokens has one more", len(values) == size + 1 and values[0] is None)
        top = choice.logprobs.top_logprobs[1:]
        check("no token beats the best", all(
            value <= max(best.values()) for value, best in zip(values[1:], top)))  # fmt: skip
    sampled = create(model=model, prompt="The", n=3, seed=5, temperature=1.0, max_tokens=8)
    again = create(model=model, prompt="The", n=3, seed=5, temperature=1.0, max_tokens=8)
    check("a seed gives the same texts", [c.text for c in sampled.choices] == [c.text for c in again.choices])
    check("choices differ", len({choice.text for choice in sampled.choices}) > 1)
    stop = whole.choices[0].text[3:5]
    if stop:
        ended = create(model=model, prompt="The king", stop=[stop], **GREEDY)
        check("a stop string ends the text", ended.choices[0].finish_reason == "stop" and
              ended.choices[0].text == whole.choices[0].text.split(stop)[0])  # fmt: skip


def check_chat(check, client, model):
    create = client.chat.completions.create
    messages = [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Name a colour."}]}]  # fmt: skip
    whole = create(model=model, messages=messages, logprobs=True, top_logprobs=3, **GREEDY)
    choice = whole.choices[0]
    check("chat answers", choice.message.role == "assistant", repr(choice.message.content))
    check("chat log probabilities", len(choice.logprobs.content) == whole.usage.completion_tokens and
          all(len(token.top_logprobs) == 3 for token in choice.logprobs.content))  # fmt: skip
    stream = list(create(model=model, messages=messages, stream=True,
                         stream_options={"include_usage": True}, **GREEDY))  # fmt: skip
    parts = [part.choices[0] for part in stream if part.choices]
    check("the role comes first", parts[0].delta.role == "assistant")
    check("chat stream gives the same text", choice.message.content ==
          "".join(part.delta.content or "" for part in parts))  # fmt: skip
    check("finish reason comes last", parts[-1].finish_reason == choice.finish_reason)
    check("chat stream ends with usage", stream[-1].usage == whole.usage)


def check_errors(check, server, client, model):
    create = client.completions.create
    check("models", [m.id for m in client.models.list()] == [model])
    check("one model", client.models.retrieve(model).id == model)
    stranger = openai.OpenAI(base_url=server.url + "/v1", api_key="wrong", max_retries=0)
    check.raises("wrong key", openai.AuthenticationError, lambda: stranger.models.list())
    check.raises("unknown model", openai.NotFoundError, lambda: create(model="gpt", prompt="a"))
    check.raises("too many tokens", openai.BadRequestError,
                 lambda: create(model=model, prompt="a", max_tokens=10**7), "maximum context")  # fmt: skip
    check.raises("wrong type", openai.BadRequestError,
                 lambda: create(model=model, prompt="a", extra_body={"temperature": "hot"}),
                 "temperature")  # fmt: skip
    check.raises("unknown member", openai.BadRequestError,
                 lambda: create(model=model, prompt="a", extra_body={"tempreature": 1}),
                 "tempreature")  # fmt: skip
    check.raises("suffix", openai.BadRequestError,
                 lambda: create(model=model, prompt="a", suffix="z"), "suffix")  # fmt: skip


async def check_together(check, server, model):
    client = openai.AsyncOpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0)

    async def one(i):
        answer = await client.completions.create(
            model=model, prompt=f"The number {i}", temperature=0.8, seed=i, max_tokens=16, logprobs=1
        )
        return answer.choices[0].text, answer.choices[0].logprobs.token_logprobs

    alone = [await one(i) for i in range(32)]
    together = await asyncio.gather(*(one(i) for i in range(32)))
    check("32 calls at once give each what it gives alone, to the bit", alone == list(together))
    check("log probabilities are finite", all(math.isfinite(v) for _, vs in alone for v in vs))


def raw(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def check_raw(check, server):
    def post(body, more=""):
        return (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n{more}"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body  # fmt: skip

    cases = {
        "broken JSON": (post(b'{"prompt": '), b" 400 "),
        "no UTF-8": (post(b'{"prompt": "\xff"}'), b" 400 "),
        "deep JSON": (post(b"[" * 100000), b" 400 "),
        "huge body announced": (post(b"").replace(b"Length: 0", b"Length: 9999999999"), b" 413 "),
        "compressed body": (post(b"{}", "Content-Encoding: gzip\r\n"), b" 415 "),
        "no HTTP": (b"\x16\x03\x01\x02\x00\r\n\r\n", b" 400 "),
        "no key": (b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", b" 401 "),
    }
    for label, (data, want) in cases.items():
        head = raw(server, data).split(b"\r\n")[0]
        check(f"raw: {label}", want in head + b" ", head.decode(errors="replace"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--chat-template", type=pathlib.Path)
    args = parser.parse_args()
    check = Check()
    options = ["--api-key", KEY, "--name", "checked"]
    if args.chat_template:
        options += ["--chat-template", args.chat_template]
    with Server(args.engine, args.model, *options) as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0)
        check_completions(check, client, "checked")
        check_chat(check, client, "checked")
        check_errors(check, server, client, "checked")
        asyncio.run(check_together(check, server, "checked"))
        check_raw(check, server)
        check("all pages are back", server.metrics(KEY)["tern_kv_pages_used"] == 0)
    compare.finish(check.results, None, {})


if __name__ == "__main__":
    main()
