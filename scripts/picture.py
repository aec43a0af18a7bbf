#!/usr/bin/env python3
"""Draws docs/run.svg: what a terminal shows after the shipped pipeline has run.

    python3 -m venv venv && venv/bin/pip install pyte
    venv/bin/python scripts/picture.py [--cryo PATH] [--out docs/run.svg]

The commands really run, in a copy of the project in a temporary folder, behind a terminal that
is emulated (pyte). So the picture holds what people see, progress bars gone and colours kept.
"""

import argparse
import html
import os
import pty
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyte

COMMANDS = [
    ["apply", "pipelines/sentiment.toml"],
    ["predict", "a warm and funny film", "two hours that I will not get back"],
]
COLUMNS, LINES = 100, 200
CHARACTER, LINE, MARGIN = 8.4, 18, 16
COLOURS = {
    "default": "#d8dee9", "black": "#4c566a", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b",
    "yellow": "#e5c07b", "blue": "#61afef", "magenta": "#c678dd", "cyan": "#56b6c2", "white": "#eceff4",
}


def run(cryo: Path, arguments: list[str], folder: Path, stream: pyte.ByteStream) -> None:
    """Runs one command behind the emulated terminal."""
    shown = " ".join(f'"{word}"' if " " in word else word for word in arguments)
    stream.feed(f"$ cryo {shown}\r\n".encode())
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    environment = dict(os.environ, COLUMNS=str(COLUMNS), LINES="50", TERM="xterm-256color")
    subprocess.run(["stty", "cols", str(COLUMNS), "rows", "50"], stdin=theirs, check=True)
    process = subprocess.Popen([cryo, *arguments], cwd=folder, stdin=theirs, stdout=theirs,
                               stderr=theirs, env=environment)
    os.close(theirs)
    while True:
        ready, _, _ = select.select([ours], [], [], 0.2)
        try:
            read = os.read(ours, 65536) if ready else b""
        except OSError:  # the other end is closed
            read = b""
        if read:
            stream.feed(read)
        elif process.poll() is not None:
            break
    os.close(ours)
    if process.returncode != 0:
        sys.exit(f"picture: cryo {shown} ended with {process.returncode}")
    stream.feed(b"\r\n")


def draw(screen: pyte.Screen) -> str:
    """The screen as an SVG, one text element a line, runs of one colour as spans."""
    rows = []
    for at in range(screen.lines):
        cells = [screen.buffer[at][column] for column in range(COLUMNS)]
        while cells and cells[-1].data == " ":
            cells.pop()
        spans, text, style = [], "", None
        for cell in cells + [None]:
            now = None if cell is None else (cell.fg, cell.bold)
            if now != style and text:
                colour = COLOURS.get(style[0], "#" + style[0] if len(style[0]) == 6 else COLOURS["default"])
                weight = ' font-weight="bold"' if style[1] else ""
                spans.append(f'<tspan fill="{colour}"{weight}>{html.escape(text)}</tspan>')
                text = ""
            if cell is not None:
                style, text = now, text + cell.data
        rows.append("".join(spans))
    while rows and not rows[-1]:
        rows.pop()
    width = round(COLUMNS * CHARACTER + 2 * MARGIN)
    height = len(rows) * LINE + 2 * MARGIN
    lines = "\n".join(
        f'<text x="{MARGIN}" y="{MARGIN + LINE * at + 13}" xml:space="preserve">{spans}</text>'
        for at, spans in enumerate(rows) if spans
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img" aria-label="A terminal after a run of cryo">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#1e222a"/>\n'
        f'<g font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14">\n'
        f"{lines}\n</g>\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cryo", default="target/release/cryo", type=Path)
    parser.add_argument("--out", default="docs/run.svg", type=Path)
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "cryoflux"
        project.mkdir()
        for name in ["cryo.toml", "pipelines", "data"]:
            source = root / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, project / name)
        for command in COMMANDS:
            run(arguments.cryo.resolve(), command, project, stream)
    arguments.out.write_text(draw(screen))
    print(f"{arguments.out}: {len(COMMANDS)} commands")


if __name__ == "__main__":
    main()
