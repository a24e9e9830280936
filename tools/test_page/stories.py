"""Four people at the page, each by keyboard only: somebody new, somebody at three in the morning, an auditor, and somebody who
has nothing left but the repository and its recovery kit."""
import json
import pathlib
import tempfile
import time

from .browser import WAIT, Browser, die


def run(program, bed, names, out):
    """Runs the stories in one browser. `bed`: origin, token, server, table, statement."""
    with tempfile.TemporaryDirectory(prefix="holdfast-profile-", ignore_cleanup_errors=True) as profile:
        browser = Browser(program, pathlib.Path(profile))
        try:
            log_in(browser, bed)
            for name in names:
                print(f"-- {name}")
                ALL[name](browser, bed, out)
            strangers = [url for url in browser.requests if not url.startswith((bed["origin"], "blob:" + bed["origin"], "data:", "about:"))]
            if strangers:
                die(f"the page asked somebody else: {strangers}")
            if browser.console:
                die(f"the console has errors: {browser.console}")
            print(f"ok: {len(browser.requests)} requests, all to the daemon; no error in the console")
        finally:
            browser.process.terminate()
            browser.process.wait(30)


def log_in(browser, bed):
    browser.ask("Page.navigate", url=f"{bed['origin']}/")
    browser.until("the login is asked for", "!!document.getElementById('login')?.open")
    browser.tab_to("the token", "e.id === 'token'")
    browser.type(bed["token"])
    browser.enter()
    browser.until("the server is on the dashboard", f"document.querySelector('.card h2 a')?.textContent === {json.dumps(bed['server'])}")
    # What was refused before the token was typed is no error of the page.
    browser.console = [line for line in browser.console if "401" not in line]


def choose(browser, field, value):
    """Picks an option of a list, as arrow keys do."""
    browser.tab_to(field, f"e.id === {json.dumps(field)}")
    browser.eval(f"(() => {{ const e = document.getElementById({json.dumps(field)}); e.value = {json.dumps(value)};"
                 " e.dispatchEvent(new Event('change', { bubbles: true })); e.dispatchEvent(new Event('input', { bubbles: true })); })()")


def fill(browser, field, text):
    """Writes into a field in place of what it holds."""
    browser.tab_to(field, f"e.id === {json.dumps(field)}")
    browser.eval("document.activeElement.select()")
    browser.type(text)


def press(browser, words):
    browser.tab_to(words, f"e.tagName === 'BUTTON' && e.textContent === {json.dumps(words)}")
    browser.enter()


def follow(browser, words):
    browser.tab_to(words, f"e.tagName === 'A' && e.textContent.startsWith({json.dumps(words)})")
    browser.enter()


def restore(browser, bed, folder, out, picture):
    """From the wizard as it stands to the checklist: plan, typed name, proof."""
    fill(browser, "restore-folder", folder)
    choose(browser, "restore-prove", "quick")
    press(browser, "Show the plan")
    browser.until("the plan", "!!document.getElementById('restore-confirm') || !!document.querySelector('main .trouble')")
    browser.names("plan")
    browser.tab_to("the confirmation", "e.id === 'restore-confirm'")
    browser.type(bed["server"])
    browser.until("the server's name is typed", "!document.querySelector('#confirm-form button').disabled")
    browser.enter()
    browser.until("the restore is proved, and the checklist says what is left",
                  "document.querySelectorAll('#checklist li.done').length >= 2 && document.querySelectorAll('#checklist li.todo').length >= 1"
                  " || (document.querySelector('main .trouble')?.textContent.trim() && (() => { throw new Error(document.querySelector('main .trouble').textContent); })())")
    browser.names("checklist")
    browser.picture(out / picture)


def newcomer(browser, bed, out):
    """A table was dropped: find the statement, restore to just before it, see the proof. No page of words was read."""
    browser.names("dashboard")
    browser.picture(out / "newcomer-1-dashboard.png")
    follow(browser, bed["server"])
    browser.until("the server's page, with its timeline and its history",
                  "!!document.querySelector('.timeline svg') && document.querySelectorAll('.charts svg[role=img]').length > 0")
    browser.names("server")
    follow(browser, "Find…")
    browser.until("the page to find on", "!!document.getElementById('find-form')")
    fill(browser, "find-like", "DROP%")
    press(browser, "Find")
    browser.until("the statement is found", f"document.querySelector('#found code')?.textContent.includes({json.dumps(bed['statement'])})")
    browser.names("find")
    browser.picture(out / "newcomer-2-found.png")
    follow(browser, "Restore to just before")
    browser.until("the wizard, at the moment before it", "document.getElementById('restore-when')?.value === 'before' && document.getElementById('restore-moment').value.length > 3")
    restore(browser, bed, "newcomer", out, "newcomer-3-proved.png")


def oncall(browser, bed, out):
    """From the alert's link to one table beside the live ones, and what became of another since."""
    browser.eval(f"location.hash = '#/server/{bed['server']}'")
    browser.until("the timeline", "!!document.querySelector('.timeline details')")
    browser.tab_to("the slider", "e.id === 'moment'")
    before = browser.eval("document.getElementById('moment').getAttribute('aria-valuetext') + document.getElementById('exact').value")
    for _ in range(3):
        browser.key("PageDown", "PageDown", 34)
    browser.until("the slider moves, and says which transaction is the last one kept",
                  f"document.getElementById('moment').getAttribute('aria-valuetext') + document.getElementById('exact').value !== {json.dumps(before)}"
                  " && !!document.querySelector('.cut, main .trouble')")
    browser.tab_to("the changes of definitions", "e.tagName === 'SUMMARY' && e.textContent.includes('changes of definitions')")
    browser.enter()
    browser.tab_to("the flag of the statement", f"e.getAttribute('aria-label')?.startsWith('To just before') && e.getAttribute('aria-label').includes({json.dumps(bed['statement'])})")
    browser.enter()
    browser.until("the plan's minutes", "[...document.querySelectorAll('.cut section')].some((s) => s.textContent.startsWith('A restore takes') && s.textContent.includes('about'))"
                  " && document.querySelector('.cut').textContent.includes('--before')")
    browser.names("timeline")
    browser.picture(out / "oncall-1-timeline.png")
    follow(browser, "Restore to here…")
    browser.until("the wizard", "document.getElementById('restore-when')?.value === 'before'")
    choose(browser, "restore-what", "tables")
    fill(browser, "restore-tables", bed["table"])
    restore(browser, bed, "oncall", out, "oncall-2-table.png")
    browser.until("the checklist says how it is copied back", "document.getElementById('checklist').textContent.includes('mysqldump')")
    browser.eval(f"location.hash = '#/find/{bed['server']}'")
    browser.until("the page to compare on", "!!document.getElementById('diff-form')")
    fill(browser, "diff-table", bed["other_table"])
    press(browser, "Compare")
    browser.until("what became of the other table", f"document.getElementById('diff-words')?.textContent.includes({json.dumps(bed['difference'])})")
    browser.names("diff")
    browser.picture(out / "oncall-3-diff.png")


def auditor(browser, bed, out):
    """One file that says what was promised, kept and proved."""
    with tempfile.TemporaryDirectory(prefix="holdfast-saved-") as saved:
        session, browser.session = browser.session, None
        browser.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=saved)
        browser.session = session
        browser.eval("location.hash = '#/verification'")
        browser.until("the page of what was proved", "!!document.getElementById('report-stretch')")
        press(browser, "Check one block of 32 now")
        browser.until("the blocks of the day are read and right", """(async () => {
          const answer = await fetch('/api/v1/status', { headers: { Authorization: `Bearer ${sessionStorage.getItem('token')}` } });
          return (await answer.json()).repository.canary_clean === true; })()""")
        press(browser, "Save the report")
        browser.until("the report is summed up", "document.getElementById('report-words').textContent.includes('the audit log is whole')")
        browser.names("verification")
        browser.picture(out / "auditor-1-verification.png")
        deadline = time.time() + WAIT
        while not list(pathlib.Path(saved).glob("holdfast-report-*.json")):
            if time.time() > deadline:
                die("the report was not saved")
            time.sleep(0.05)
        report = json.loads(next(pathlib.Path(saved).glob("holdfast-report-*.json")).read_text())
    server = next(s for s in report["servers"] if s["server"] == bed["server"])
    asked = [entry["what"] for entry in report["audit"]["entries"]]
    if not server["backups"] or not server["terms"] or not server["days"] or not report["audit"]["intact"]:
        die(f"the report lacks something: {server}")
    if "proofs" in bed and len([p for p in server["proofs"] if p["proved"]]) < bed["proofs"]:
        die(f"the report lacks a proof: {server['proofs']}")
    if not any(what.startswith("POST /restores") for what in asked):
        die(f"the report does not say who restored: {asked}")
    print("ok: the saved report has policy, days, backups, proofs and requests")


def disaster(browser, bed, out):
    """Nothing is left but the repository: its server is gone, and the daemon is a fresh one on another host."""
    browser.until("the dashboard says that the server does not answer, and to when it can be restored",
                  "document.querySelector('.card.red .headline')?.textContent.length > 10")
    browser.names("dashboard of a disaster")
    browser.picture(out / "disaster-1-dashboard.png")
    follow(browser, bed["server"])
    browser.until("the timeline", "!!document.querySelector('.timeline svg')")
    follow(browser, "Restore…")
    browser.until("the wizard", "!!document.getElementById('restore-form')")
    restore(browser, bed, "disaster", out, "disaster-2-proved.png")


ALL = {"newcomer": newcomer, "oncall": oncall, "auditor": auditor, "disaster": disaster}
