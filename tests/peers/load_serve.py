"""Load test of tern serve: N clients in turn with requests of every kind, errors, speed and memory.

  load_serve.py MODEL --engine build/cpu/bin/tern-engine [--clients 32] [--seconds 300] [--bench]
                [--prompt 16] [--tokens 64] [--plain] [-o result.json]

Each client sends its next request as soon as the last one is answered: half of them streamed, a few
given up half-way, prompts as ids of many lengths (--plain: all whole, all alike: --prompt ids, then
--tokens new ones). Every answer must be complete. --bench runs `bench decode --batch N` before and
after, and gives the ratio. Standard library alone, and little of it on the client's side: clients
and server share the machine. Exit 0 no error, 4 otherwise.
"""

import argparse
import asyncio
import json
import pathlib
import random
import statistics
import subprocess
import time

import compare
from serve_process import Server


class Load:
    def __init__(self, args, server):
        self.args, self.server = args, server
        self.tokens = self.prompt_tokens = self.answers = self.given_up = 0
        self.errors, self.seconds, self.first = [], [], []
        self.end = time.monotonic() + args.seconds

    def request(self, rng):
        plain = self.args.plain
        size = self.args.prompt if plain else rng.choice((1, 7, 16, 40, 90))
        count = self.args.tokens if plain else rng.choice((1, 16, 64, 100))
        body = {"prompt": [rng.randrange(3, 250) for _ in range(size)], "max_tokens": count,
                "temperature": rng.choice((0, 0.8)), "seed": rng.randrange(1000),
                "ignore_eos": True}  # fmt: skip
        if not plain and rng.random() < 0.5:
            body["stream"] = True
        if not plain and rng.random() < 0.1:
            body |= {"echo": True, "logprobs": 1}
        return body

    async def call(self, body, give_up):
        data = json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        begun = time.monotonic()
        try:
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data
            )
            head = await reader.readuntil(b"\r\n\r\n")
            status = head.split(b" ", 2)[1]
            if status != b"200":
                self.errors.append(f"status {status.decode()}: {(await reader.read()).decode()}")
                return
            if body.get("stream"):
                first = await reader.readuntil(b"data: ")
                self.first.append(time.monotonic() - begun)
                if give_up:
                    self.given_up += 1
                    return
                rest = first + await reader.read()
                if not rest.rstrip(b"\r\n0").endswith(b"[DONE]"):
                    self.errors.append(f"a stream without its end: {rest[-200:]}")
                    return
                self.tokens += body["max_tokens"]
            else:
                usage = json.loads(await reader.read())["usage"]
                if usage["completion_tokens"] != body["max_tokens"]:
                    self.errors.append(f"{usage} for {body}")
                self.tokens += usage["completion_tokens"]
            self.prompt_tokens += len(body["prompt"])
            self.answers += 1
            self.seconds.append(time.monotonic() - begun)
        finally:
            writer.close()

    async def client(self, number):
        rng = random.Random(number)
        while time.monotonic() < self.end:
            try:
                await asyncio.wait_for(
                    self.call(self.request(rng), not self.args.plain and rng.random() < 0.05), 300)  # fmt: skip
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                self.errors.append(repr(error))

    async def watch(self, samples):
        while time.monotonic() < self.end:
            samples.append(round(self.server.rss_mib(), 1))
            await asyncio.sleep(1)

    async def run(self):
        samples = []
        await asyncio.gather(*(self.client(i) for i in range(self.args.clients)), self.watch(samples))
        return samples


def percentiles(values):
    cuts = statistics.quantiles(values, n=100)
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98]}


def bench(args):
    command = [args.engine, "bench", "decode", args.model, "--batch", args.clients, "--prompt",
               args.prompt, "-n", args.tokens, "--rounds", 1, "--threads", args.threads, "--json"]  # fmt: skip
    out = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE)
    return json.loads(out.stdout)["rows"][0]["tokens_per_second"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--bench", action="store_true")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    args = parser.parse_args()
    record = {"command": vars(args) | {"model": args.model.name, "engine": "tern-engine", "output": ""}}
    rates = [bench(args)] if args.bench else []
    with Server(args.engine, args.model, "--threads", args.threads) as server:
        load = Load(args, server)
        before, begun = server.metrics(), time.monotonic()
        samples = asyncio.run(load.run())
        elapsed = time.monotonic() - begun
        for _ in range(100):  # The clients that gave up last
            after = server.metrics()
            if after["tern_sequences_running"] == 0:
                break
            time.sleep(0.1)
    if args.bench:
        rates.append(bench(args))
    new = after["tern_generated_tokens_total"] - before["tern_generated_tokens_total"]
    record |= {
        "seconds": elapsed, "answers": load.answers, "given_up": load.given_up,
        "errors": len(load.errors), "first_errors": load.errors[:5],
        "new_tokens_per_second": new / elapsed,
        "tokens_per_second_with_prompts": (new + after["tern_prompt_tokens_total"]) / elapsed,
        "mean_rows_a_step": after["tern_step_rows_total"] / max(after["tern_steps_total"], 1),
        "request_seconds": percentiles(load.seconds) if len(load.seconds) > 1 else None,
        "first_byte_seconds": percentiles(load.first) if len(load.first) > 1 else None,
        "preempted": after["tern_preempted_total"], "kv_pages_used_at_end": after["tern_kv_pages_used"],
        "rss_mib_each_second": samples, "bench_tokens_per_second": rates,
    }  # fmt: skip
    if rates:
        record["share_of_bench"] = record["new_tokens_per_second"] / statistics.mean(rates)
    shown = {key: value for key, value in record.items() if key != "rss_mib_each_second"}
    print(json.dumps(shown, indent=1))
    half = len(samples) // 2
    print(f"RSS MiB: {samples[0]} at first, {samples[half]} half-way, {samples[-1]} at last")
    results = [not load.errors, after["tern_kv_pages_used"] == 0]
    compare.finish(results, args.output, record)


if __name__ == "__main__":
    main()
