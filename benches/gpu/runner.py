"""Runs the programs that are measured: each under a limit, with what it cost."""

import hashlib
import json
import lzma
import os
import signal
import subprocess
import tarfile
import threading
import time

from card import Watch

TAIL = 2000  # characters of a program's errors that go into the log
GRACE = 5  # seconds between asking a program to end and ending it


class Failed(Exception):
    """Why a part has no result."""


class Skipped(Exception):
    """Why a part was not tried."""


class Ran:
    """What a program did and what it took."""

    def __init__(self, code, out, errors, seconds, usage, watch):
        self.code, self.out, self.errors = code, out, errors
        self.cost = {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "peak_mib": round(usage.ru_maxrss / 1024, 1),
            "card_joules": watch.joules,
            "card_seconds": watch.seconds,
            "card_peak_mib": watch.peak_mib,
        }

    def json(self):
        lines = self.out.strip()
        try:
            return json.loads(lines)
        except ValueError:
            raise Failed(f"it printed no JSON: {lines[-200:]!r}") from None


class Runner:
    """Starts programs in the work folder and keeps what they print."""

    def __init__(self, work, log, card):
        self.work, self.log, self.card = work, log, card
        self.child = None

    def note(self, text):
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    def run(self, command, limit, environment=None, cwd=None, accepted=(0,)):
        command = [str(word) for word in command]
        out, errors = self.work / "stdout", self.work / "stderr"
        with open(out, "wb") as stdout, open(errors, "wb") as stderr, Watch(self.card) as watch:
            begun = time.perf_counter()
            child = subprocess.Popen(
                command,
                cwd=cwd or self.work,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # A group of its own, so that what it starts ends with it.
                start_new_session=True,
            )
            self.child = child
            done = []

            def wait():
                # Not Popen's wait, which forgets what the child used.
                _, status, usage = os.wait4(child.pid, 0)
                done.append((time.perf_counter(), status, usage))

            waiter = threading.Thread(target=wait, daemon=True)
            waiter.start()
            waiter.join(limit)
            in_time = bool(done)
            for kind in (signal.SIGTERM, signal.SIGKILL):
                if done:
                    break
                end(child.pid, kind)
                waiter.join(GRACE)
            if not done:
                raise Failed(f"it cannot be ended after {limit:.0f} s")
            ended, status, usage = done[0]
            child.returncode = os.waitstatus_to_exitcode(status)  # Popen need not look for it
            self.child = None
        text = errors.read_bytes().decode(errors="replace")
        ran = Ran(
            child.returncode,
            out.read_bytes().decode(errors="replace"),
            text,
            ended - begun,
            usage,
            watch,
        )
        shown = " ".join(word if len(word) < 200 else "..." for word in command)
        self.note(f"$ {shown}\n  exit {ran.code}, {ran.cost['seconds']:.1f} s")
        if text.strip():
            self.note(text[-TAIL:])
        if not in_time:
            raise Failed(f"not done after {limit:.0f} s")
        if ran.code not in accepted:
            raise Failed(f"exit code {ran.code}: {cause(text) or 'it said nothing'}")
        return ran

    def stop(self):
        """Ends the program that runs, when this one is told to end."""
        if self.child is not None:
            end(self.child.pid, signal.SIGKILL)


def end(group, kind):
    try:
        os.killpg(group, kind)
    except ProcessLookupError:
        pass


def cause(errors):
    """The line of a program's errors that says most: the last, or what a panic said."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    for at, line in enumerate(lines):
        if "panicked at" in line and at + 1 < len(lines):
            return f"{line} {lines[at + 1]}"[:300]
    for line in lines:
        if line.startswith("error"):
            return line[:300]
    return lines[-1][:300] if lines else ""


class Pieces:
    """Files that follow each other, read as one."""

    def __init__(self, paths):
        self.paths, self.file = list(paths), None

    def read(self, size=-1):
        while True:
            if self.file is None:
                if not self.paths:
                    return b""
                self.file = open(self.paths.pop(0), "rb")
            data = self.file.read(size)
            if data:
                return data
            self.file.close()
            self.file = None

    def readable(self):
        return True

    def seekable(self):
        return False


def unpack(parts, into):
    """Unpacks what pack.sh packed for the way: `NAME.sha256` lists the pieces of one archive."""
    for listing in sorted(parts.glob("*.sha256")):
        paths = []
        for line in listing.read_text(encoding="utf-8").splitlines():
            digest, name = line.split()
            path = parts / name
            if not path.is_file():
                raise Failed(f"{listing.name} names {name}, which is not in {parts}")
            found = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
            if found.hexdigest() != digest:
                raise Failed(f"{name} is not what was packed")
            paths.append(path)
        with lzma.open(Pieces(paths)) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(into, filter="data")
            else:
                archive.extractall(into)
