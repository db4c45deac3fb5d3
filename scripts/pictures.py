"""Draw the terminal while `kinstream demo`, `tail` and `shards` run, from their real output, into docs/pictures/."""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

from kinstream import blocking
from kinstream.local import Server

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
COLUMNS, ROWS = 116, 40
"""Size of the terminal."""
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")
"""A control sequence with its parameters and its letter, an end of line, or text."""
FORMAT = re.sub(r"@font-face \{{.*?\}}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""Format of rich, without the fonts that it would load from another host."""
FORESTS = ("oak", "beech", "spruce", "pine", "birch")


class Screen:
    """The rows of a terminal, with their colors as control sequences."""

    def __init__(self) -> None:
        self.rows: list[str] = [""]
        self._row = 0

    def write(self, output: str) -> None:
        """Apply the output of a command: text, colors, ends of lines, and the movements by which progress bars are redrawn."""
        for parameters, letter, end, text in CONTROL.findall(output):
            if end == "\n":
                self._row += 1
                if self._row == len(self.rows):
                    self.rows.append("")
            elif letter == "A":
                self._row = max(0, self._row - int(parameters or 1))
            elif letter == "K":
                self.rows[self._row] = ""
            elif letter == "m":
                self.rows[self._row] += f"\x1b[{parameters}m"
            else:
                self.rows[self._row] += text


def output_of(command: list[str], environment: dict[str, str]) -> str:
    """Return the output of a command that runs in a terminal of its own.

    Raises:
        RuntimeError: The command failed.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(sys.executable, [sys.executable, "-m", *command], environment | {"TERM": "xterm-256color"})  # noqa: S606 - its output is a terminal
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    output = b""
    try:
        while part := os.read(terminal, 65536):
            output += part
    except OSError:  # Linux: the command has ended
        pass
    os.close(terminal)
    text = output.decode()
    if status := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise RuntimeError(f"{shlex.join(command)} ended with status {status}:\n{text}")
    return text


def draw(name: str, output: str) -> None:
    """Draw the last rows that a command has left on the terminal, below its command line."""
    screen = Screen()
    screen.write(output)
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), (f"kinstream {name}", "bold")))
    for row in screen.rows[-ROWS:]:
        console.print(Text.from_ansi(row), no_wrap=True, crop=True)
    words = name.split()[0]
    picture = console.export_svg(title=f"kinstream {words}", code_format=FORMAT, unique_id=f"kinstream-{words}")
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{words}.svg").write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n")


@contextmanager
def traffic(server: Server, stream: str) -> Iterator[None]:
    """Write readings of sensors until the block ends."""
    ended = threading.Event()

    def write() -> None:
        with blocking.Producer(stream, **server.client_options) as producer:
            for n in itertools.count():
                forest = FORESTS[n % len(FORESTS)]
                producer.put(
                    {"sensor": n % 40, "forest": forest, "celsius": round(12 + n % 90 / 10, 1)}, f"sensor-{n % 40}"
                )
                if ended.wait(0.004):
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def main() -> None:
    """Draw all pictures."""
    with Server() as server:
        server.create_stream("events", 2)
        environment = os.environ | server.environment
        with traffic(server, "events"):
            for shard in ("shardId-000000000000", "shardId-000000000003"):
                time.sleep(1)
                split = [sys.executable, "-m", "kinstream", "reshard", "events", "--split", shard, "--yes"]
                subprocess.run(split, env=environment, check=True, capture_output=True)
            time.sleep(6)
            for command in (
                "shards events --load 5",
                "tail events --from oldest --json-path '$.celsius >= 18' --count 12",
            ):
                draw(command, output_of(["kinstream", *shlex.split(command)], environment))
    draw("demo", output_of(["kinstream", "demo"], dict(os.environ)))


if __name__ == "__main__":
    main()
