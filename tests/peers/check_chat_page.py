"""Uses the chat page of tern serve in headless Chromium: key, stream, stop, new chat, and its CSP.

  check_chat_page.py --engine build/cpu/bin/tern-engine [--model MODEL] [--chat-template FILE]

Without a model it makes a random one with a long context. Speaks WebDriver to chromedriver (Debian:
chromium, chromium-driver) with the standard library alone. Exit 0 all hold, 4 one does not.
"""

import argparse
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import compare
from serve_process import Server

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # The key that WebDriver gives elements
KEY = "correct horse"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


class Browser:
    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.root = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self.root.rsplit(":", 1)[1]
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL
        )
        self.wait(lambda: self.ready(), "chromedriver")
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu"]}
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"}}}})  # fmt: skip
        self.base = f"/session/{session['sessionId']}"

    def ready(self):
        try:
            return self.call("GET", "/status")["ready"]
        except OSError:
            return False

    def call(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.root + path, data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def run(self, script):
        return self.call("POST", self.base + "/execute/sync", {"script": script, "args": []})

    def find(self, css):
        return self.call("POST", self.base + "/element", {"using": "css selector", "value": css})

    def click(self, css):
        self.call("POST", f"{self.base}/element/{self.find(css)[ELEMENT]}/click", {})

    def type(self, css, text):
        path = f"{self.base}/element/{self.find(css)[ELEMENT]}"
        self.call("POST", path + "/clear", {})
        self.call("POST", path + "/value", {"text": text})

    def warnings(self):
        log = self.call("POST", self.base + "/se/log", {"type": "browser"})
        return [line["message"] for line in log if line["level"] in ("WARNING", "SEVERE")]

    def wait(self, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        sys.exit(f"FAIL  waited {seconds} s for {what}")

    def close(self):
        self.call("DELETE", self.base)
        self.driver.terminate()
        self.driver.wait()


def make_model(folder):
    import tiny_files
    import tiny_tokenizer
    from tiny_reference import TinyConfig, make_model as make_weights

    config = TinyConfig(family="llama", context=16384)
    path = folder / "random.gguf"
    tokenizer = tiny_tokenizer.train_tokenizer(config.vocab_size)
    tiny_files.write_gguf(path, config, make_weights(config, 7), tokenizer)
    return path


def texts(browser, kind):
    return browser.run(
        f"return [...document.querySelectorAll('.message.{kind}')].map(e => e.textContent)"
    )


def check_page(browser, server, results):
    def check(label, holds):
        print(f"{'pass' if holds else 'FAIL'}  {label}")
        results.append(bool(holds))

    browser.call("POST", browser.base + "/url", {"url": server.url + "/"})
    browser.type("#text", "hello\n")
    browser.wait(lambda: texts(browser, "error"), "an error without a key")
    check("without the key: the server's words", "API key" in texts(browser, "error")[0])
    browser.type("#key", KEY)
    browser.click("#clear")
    browser.wait(lambda: browser.run("return document.getElementById('model').textContent") != "tern",
                 "the model's name")  # fmt: skip
    check("the model is named", True)

    evil = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>"
    browser.type("#tokens", "8")
    browser.type("#text", evil + "\n")
    browser.wait(lambda: not browser.run("return document.getElementById('send').disabled"),
                 "a short answer")  # fmt: skip
    check("a message is text, not markup",
          texts(browser, "user") == [evil] and not browser.run("return window.pwned || "
          "document.querySelector('#log img, #log script')"))  # fmt: skip
    check("an answer came", len(texts(browser, "assistant")) == 1)

    browser.type("#tokens", "16000" if browser.long else "2000")
    browser.type("#text", "tell me more\n")
    lengths = []
    while len(lengths) < 3:  # Grows while it is at work: a stream
        length = browser.wait(lambda: len(texts(browser, "assistant")[-1]), "a streamed text")
        if not lengths or length > lengths[-1]:
            lengths.append(length)
    running = server.metrics(KEY)["tern_sequences_running"]
    check(f"the answer streams: {lengths} characters, {running:.0f} sequence at work", running == 1)
    browser.click("#stop")
    browser.wait(lambda: server.metrics(KEY)["tern_sequences_running"] == 0, "the slot", 10)
    check("stop frees the slot", server.metrics(KEY)["tern_kv_pages_used"] == 0)
    browser.wait(lambda: not browser.run("return document.getElementById('send').disabled"), "send")
    check("what had come stays", len(texts(browser, "assistant")[-1]) >= lengths[-1])
    browser.click("#clear")
    check("new chat is empty", browser.run("return document.getElementById('log').children.length") == 0)

    unexpected = [line for line in browser.warnings() if "401" not in line]
    check(f"nothing in the console: {unexpected}", not unexpected)
    browser.run("const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
                "document.body.append(s)")  # fmt: skip
    check("the policy stops a script that is not the page's", not browser.run("return window.pwned"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engine", required=True)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--chat-template", type=pathlib.Path)
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model, template = args.model, args.chat_template
        if model is None:
            model, template = make_model(folder), folder / "template.jinja"
            template.write_text(TEMPLATE)
        options = ["--api-key", KEY] + (["--chat-template", template] if template else [])
        with Server(args.engine, model, *options) as server:
            browser = Browser()
            browser.long = args.model is None
            try:
                check_page(browser, server, results)
            finally:
                browser.close()
    compare.finish(results, None, {})


if __name__ == "__main__":
    main()
