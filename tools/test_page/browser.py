"""Headless Chromium over its debugging pipe, used as somebody without a mouse uses it."""
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time

# Longest wait for anything: a machine that does much else is slow.
WAIT = 90

# One page's flaws, as sentences.
CHECKS = r"""(() => {
  const flaws = [];
  const seen = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  if (!document.documentElement.lang) flaws.push("the page has no language");
  if (!document.title.trim()) flaws.push("the page has no title");
  if (document.querySelectorAll("main").length !== 1) flaws.push("there is not one main part");
  const levels = [...document.querySelectorAll("main h1, main h2, main h3, main h4")].filter(seen).map((h) => Number(h.tagName[1]));
  if (levels.length && levels[0] !== 1) flaws.push(`the first heading is of level ${levels[0]}`);
  levels.forEach((level, at) => { if (at && level > levels[at - 1] + 1) flaws.push(`a heading of level ${level} follows one of level ${levels[at - 1]}`); });
  if (levels.filter((l) => l === 1).length > 1) flaws.push("there is more than one main heading");
  for (const image of document.querySelectorAll("img:not([alt]), svg[role=img]:not([aria-label])")) flaws.push(`a picture has no words: ${image.outerHTML.slice(0, 80)}`);
  for (const head of document.querySelectorAll("th:not([scope])")) flaws.push(`a head of a table heads nothing: ${head.textContent}`);
  for (const nested of document.querySelectorAll("a button, button a, button button, label label")) flaws.push(`a control lies in another: ${nested.outerHTML.slice(0, 80)}`);
  const numbers = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor); if (c.length && (c.length < 4 || c[3] === 1)) return c; } return [255, 255, 255]; };
  const told = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !seen(e) || e.closest("svg, script, noscript, [disabled]")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(numbers(style.color)), light(behind(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const key = `${style.color} on ${behind(e)}`;
    if (contrast < 4.5 && !told.has(key)) told.add(key), flaws.push(`contrast ${contrast.toFixed(1)} of "${e.textContent.slice(0, 30)}": ${key}`);
  }
  return flaws;
})()"""


def die(text):
    print(f"test-page: {text}", file=sys.stderr)
    sys.exit(1)


def program():
    """The browser, or the end of the test: a page that nobody looked at is not tested."""
    found = os.environ.get("HOLDFAST_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        die("there is no Chromium on the PATH, and HOLDFAST_BROWSER names none: run tools/get-browser")
    return found


class Browser:
    """Chromium over its debugging pipe: JSON documents with a zero byte behind each."""

    def __init__(self, program, profile):
        # The browser reads commands from 3 and writes answers to 4.
        out_read, out_write = os.pipe()
        in_read, in_write = os.pipe()
        arguments = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                     "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
                     "--ignore-certificate-errors", "--remote-debugging-pipe", f"--user-data-dir={profile}",
                     "--window-size=1100,900", "about:blank"]
        shell = ["sh", "-c", f'exec 3<&{in_read} 4>&{out_write}; exec "$@"', "sh", *arguments]
        self.process = subprocess.Popen(shell, pass_fds=(in_read, out_write), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        os.close(in_read), os.close(out_write)
        self.write, self.read, self.rest, self.last = in_write, out_read, b"", 0
        self.console, self.requests, self.session = [], [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.ask(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.rest:
            # One that hangs is no better than one that died.
            if not select.select([self.read], [], [], WAIT)[0]:
                die(f"the browser said nothing for {WAIT} s")
            piece = os.read(self.read, 1 << 16)
            if not piece:
                die("the browser ended")
            self.rest += piece
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def ask(self, method, **params):
        self.last += 1
        document = {"id": self.last, "method": method, "params": params}
        if self.session:
            document["sessionId"] = self.session
        data = json.dumps(document).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data):]
        while True:
            answer = self.message()
            if answer.get("id") == self.last:
                if "error" in answer:
                    die(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.heard(answer)

    def heard(self, event):
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.console.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.console.append(str(params["args"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def eval(self, code):
        done = self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            die(f"{code}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def until(self, what, code):
        deadline = time.time() + WAIT
        while not self.eval(code):
            if time.time() > deadline:
                die(f"not within {WAIT} s: {what}\n{self.eval('document.body.innerText')}\n{self.console}")
            time.sleep(0.1)
        print(f"ok: {what}")

    def key(self, key, code, number, text=""):
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number,
                     **({"text": text} if text and kind == "keyDown" else {}))

    def tab_to(self, what, code):
        """Moves the focus by the Tab key only, as somebody without a mouse does."""
        for _ in range(150):
            if self.eval(f"(() => {{ const e = document.activeElement; return !!({code}); }})()"):
                return
            self.key("Tab", "Tab", 9)
        die(f"the keyboard does not reach {what}: it stands at {self.eval('document.activeElement.outerHTML')}")

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def enter(self):
        self.key("Enter", "Enter", 13, "\r")

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def names(self, where):
        """What a checker of accessibility asks of a page: every control has a name that a screen reader can say, headings
        are in order, text can be told from what is behind it, nothing is there twice."""
        flaws = self.eval(CHECKS)
        if flaws:
            die(f"{where}: " + "; ".join(flaws))
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        controls = ("button", "link", "textbox", "combobox", "slider", "checkbox", "progressbar", "progress")
        for node in nodes:
            if not node.get("ignored") and node.get("role", {}).get("value") in controls:
                if not node.get("name", {}).get("value", "").strip():
                    die(f"{where}: a {node['role']['value']} has no name: {node.get('properties')}")
        twice = self.eval("[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, at, all) => all.indexOf(id) !== at).join()")
        if twice:
            die(f"{where}: ids that are there twice: {twice}")
