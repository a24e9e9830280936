"""A real MariaDB, a repository and a daemon for the stories, all in one folder, on loopback."""
import os
import pathlib
import secrets
import socket
import subprocess
import time

from .browser import WAIT, die

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = pathlib.Path(os.environ.get("HOLDFAST_TEST_BIN") or TOP / "target/debug")
SERVER = pathlib.Path(os.environ.get("HOLDFAST_TEST_MARIADB") or TOP / "servers/mariadb")
PASSWORD = "only-for-Tests-1"


def wait(what, holds):
    """Until it holds; its answer."""
    deadline = time.time() + WAIT
    while not (answer := holds()):
        if time.time() > deadline:
            die(f"not within {WAIT} s: {what}")
        time.sleep(0.1)
    return answer


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process):
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def query(text, at, check=True):
    """The rows of a statement, a line each; nothing if it failed and that is no matter."""
    client = [SERVER / "bin/mariadb", "--no-defaults", "-N", "-B", "-u", "root", f"--socket={at}", "-e", text]
    done = subprocess.run(client, capture_output=True, text=True)
    if check and done.returncode:
        die(f"{text}: {done.stderr}")
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else None


def counts(at):
    """The tables of the restored server and their rows."""
    tables = query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop' ORDER BY 1", at)
    return {table: int(query(f"SELECT COUNT(*) FROM shop.{table}", at)[0]) for table in tables}


class Source:
    """A running server with a binary log and the account for backups."""

    def __init__(self, folder):
        if not (SERVER / "bin/mariadbd").exists():
            die(f"{SERVER}/bin/mariadbd is missing: run tools/get-server mariadb, or name a folder in HOLDFAST_TEST_MARIADB")
        data = folder / "source"
        self.socket = folder / "source.sock"
        log = open(folder / "source.log", "w")
        subprocess.run([SERVER / "bin/mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
                        "--skip-test-db", "--user=" + os.environ.get("USER", "root")], check=True, stdout=log, stderr=log)
        self.process = subprocess.Popen([SERVER / "bin/mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={self.socket}", "--skip-networking",
                                         f"--pid-file={folder}/source.pid", "--log-bin=binlog", "--binlog-format=ROW", "--binlog-row-image=FULL", "--server-id=41",
                                         "--binlog-row-metadata=FULL", "--innodb-buffer-pool-size=64M", "--user=root"], stdout=log, stderr=log)
        wait("the server answers", lambda: self.process.poll() is None and self.query("SELECT 1", check=False) == ["1"])
        self.query(f"CREATE USER backup@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO backup@localhost")

    def query(self, text, check=True):
        return query(text, self.socket, check)


class Holdfast:
    """A user with a repository, and his daemon."""

    def __init__(self, folder):
        self.folder = folder
        self.repository = folder / "repository"
        self.daemon = None
        folder.mkdir(exist_ok=True)
        (folder / "passphrase").write_text(secrets.token_hex(16) + "\n")
        (folder / "restored").mkdir()

    def run(self, *arguments):
        environment = {**os.environ, "HOLDFAST_CONFIG": str(self.folder / "servers.toml")}
        command = [BIN / "holdfast", "--repo", self.repository, "--passphrase-file", self.folder / "passphrase", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            die(f"{arguments}: {done.stderr}")
        return done.stdout

    def answers(self, *arguments):
        """Whether the daemon has an answer already."""
        command = [BIN / "holdfast", "--daemon", self.folder / "socket", *arguments]
        return subprocess.run(command, capture_output=True).returncode in (0, 3)

    def start(self, name):
        """Starts the daemon; what a story needs to know of it."""
        made = subprocess.run([BIN / "holdfastd", "token", "page", "--role", "admin"], check=True, capture_output=True, text=True)
        (self.folder / "tokens.toml").write_text("".join(made.stderr.splitlines(keepends=True)[1:]))
        port, data = free_port(), TOP / "crates/daemon/tests/data"
        (self.folder / "holdfast.toml").write_text(f"""
repository = "{self.repository}"
passphrase_file = "{self.folder}/passphrase"
state = "{self.folder}/state"
logins = "{self.folder}/servers.toml"
socket = "{self.folder}/socket"
spool = "{self.folder}"
restore_into = ["{self.folder}/restored"]
[engines]
mariadb = "{SERVER}"
[policy.default]
drill = 0
retry = {{ interval = "5s" }}
[listen]
address = "127.0.0.1:{port}"
certificate = "{data}/certificate.pem"
key = "{data}/key.pem"
tokens = "{self.folder}/tokens.toml"
""")
        log = open(self.folder / "holdfastd.log", "w")
        self.daemon = subprocess.Popen([BIN / "holdfastd", "--config", self.folder / "holdfast.toml"], stdout=log, stderr=log)
        wait("the daemon's socket", lambda: (self.folder / "socket").exists() and self.daemon.poll() is None)
        return {"origin": f"https://127.0.0.1:{port}", "token": made.stdout.strip(), "server": name, "table": "shop.orders",
                "other_table": "shop.items", "statement": "DROP TABLE", "difference": "1 rows new, 7 changed, 0 gone", "proofs": 1}

    def stop(self):
        if self.daemon:
            end(self.daemon)
        # What a story left running.
        for at in (self.folder / "restored").glob("*/mysqld.sock"):
            query("SHUTDOWN", at, check=False)
            wait("the restored server has ended", lambda: not at.exists())
