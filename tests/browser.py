#!/usr/bin/env python3
"""A headless Chromium that looks at the page of a node, for tests/walk.sh. Nothing but the standard library.

    tests/browser.py PROFILE        PROFILE: a directory for what the browser keeps

Orders come as lines on standard input, and each is answered with one line, "seen" or "not seen: ...":

    open URL            go there; it counts as seen when the page shows who it is, or asks for a token
    good ADDRESS...     the rows of these nodes say "ready", in green
    bad ADDRESS TEXT    the node's row says "down", in another colour than that of good ones, and why: TEXT
    token FILE          the page asks for a token, and is given the one in the file
    key KEY             KEY is in the list of keys
    errors              no script failed, and the page's policy forbade nothing

What is to be seen is looked for until it is there or PATIENCE is over. The browser trusts what the environment tells it
to trust: HOME may have a store of certificates. It is driven over a pipe, so no port is opened, and ends with its input.
"""

import json
import subprocess
import sys
import time

PATIENCE = 20
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-sync", "--disable-component-update", "--remote-debugging-pipe",
]
# Turns the shell's stdin and stdout into the browser's descriptors 3 and 4.
START = 'exec chromium "$@" 3<&0 4>&1 >/dev/null 2>/dev/null'

ROW = "[...document.querySelectorAll('#nodes .node')].find(row => row.cells[0].textContent === {0})"
COLOUR = "getComputedStyle({0}.querySelector('.pill')).color"


class NotSeen(Exception):
    """What was looked for is not there."""


class Browser:
    """One tab of a Chromium of its own."""

    def __init__(self, profile):
        command = ["sh", "-c", START, "sh", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number, self.session, self.events = 0, None, []
        target = self.order("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        self.session = self.order("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log"]:
            self.order(f"{domain}.enable")

    def order(self, method, **params):
        """Gives an order and waits for its answer; what the browser says besides is kept."""
        self.number += 1
        order = {"id": self.number, "method": method, "params": params}
        if self.session:
            order["sessionId"] = self.session
        self.child.stdin.write(json.dumps(order).encode() + b"\0")
        self.child.stdin.flush()
        while True:
            said = self.message()
            if said.get("id") != self.number:
                self.events.append(said)
            elif "error" in said:
                raise NotSeen(f"{method}: {said['error']}")
            else:
                return said["result"]

    def message(self):
        """The next message: JSON that ends with a zero byte."""
        text = bytearray()
        while (byte := self.child.stdout.read(1)) != b"\0":
            if not byte:
                raise NotSeen("the browser has ended")
            text += byte
        return json.loads(text)

    def value(self, expression):
        """The value of an expression in the page; None if it throws, as while there is no such element."""
        return self.order("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression, wanted):
        """Waits until an expression is something."""
        end = time.monotonic() + PATIENCE
        while not self.value(f"!!({expression})"):
            if time.monotonic() > end:
                shown = self.value("document.querySelector('#nodes')?.innerText ?? document.body.innerText")
                raise NotSeen(f"{wanted}; the page shows: {' '.join((shown or '').split())[:600]}")
            time.sleep(0.1)


class Person:
    """What can be asked for, a method an order."""

    def __init__(self, browser):
        self.browser = browser
        self.green = None

    def open(self, url):
        failed = self.browser.order("Page.navigate", url=url).get("errorText")
        if failed:
            raise NotSeen(f"{url}: {failed}")
        self.browser.until("document.querySelector('#nodes .pill, dialog[open]')", f"the page at {url}")

    def good(self, *addresses):
        for address in addresses:
            row = ROW.format(json.dumps(address))
            seen = f"{row}?.matches('.good') && {row}.textContent.includes('✓ ready')"
            self.browser.until(seen, f"{address} ready")
            self.green = self.browser.value(COLOUR.format(row))

    def bad(self, address, *why):
        row, why = ROW.format(json.dumps(address)), " ".join(why)
        seen = f"{row}?.matches('.bad') && {row}.textContent.includes('✕ down')"
        self.browser.until(seen, f"{address} down")
        self.browser.until(f"{row}.querySelector('.why').textContent.includes({json.dumps(why)})", f"{address}: {why}")
        if self.browser.value(COLOUR.format(row)) == self.green:
            raise NotSeen(f"{address} is down in the colour of those that are ready")

    def token(self, path):
        self.browser.until("document.querySelector('dialog[open] #token')", "the question for a token")
        self.browser.value("document.querySelector('#token').focus()")
        with open(path, encoding="utf-8") as file:
            self.browser.order("Input.insertText", text=file.read().strip())
        for kind, text in [("keyDown", "\r"), ("keyUp", "")]:
            self.browser.order("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text=text,
                               windowsVirtualKeyCode=13)
        self.browser.until("!document.querySelector('dialog[open]') && document.querySelector('#nodes .pill')",
                           "the page behind the question for a token")

    def key(self, key):
        listed = "[...document.querySelectorAll('#key-list *')].some(node => node.textContent === {0})"
        self.browser.until(listed.format(json.dumps(key)), f"the key {key}")

    def errors(self):
        self.browser.value("0")
        for said in self.browser.events:
            entry = said.get("params", {}).get("entry", {})
            is_script = said.get("method") == "Runtime.exceptionThrown"
            if is_script or (entry.get("level") == "error" and entry.get("source") != "network"):
                raise NotSeen(f"no errors, but: {json.dumps(said['params'])}")


def main():
    browser = Browser(sys.argv[1])
    person = Person(browser)
    try:
        for line in sys.stdin:
            word, *rest = line.split()
            try:
                getattr(person, word)(*rest)
                answer = "seen"
            except NotSeen as error:
                answer = f"not seen: {error}"
            print(answer.replace("\n", " "), flush=True)
    finally:
        browser.child.kill()
        browser.child.wait()


if __name__ == "__main__":
    main()
