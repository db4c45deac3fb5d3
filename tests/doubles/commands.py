"""Commands of kinstream as processes, on a local Kinesis."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.streams import Place


@dataclass(frozen=True)
class Commands:
    """The command line with the environment of a server.

    Attributes:
        place: The server. Its stream is not used.
        more: Further environment variables.
    """

    place: Place
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": self.place.key,
            "AWS_SECRET_ACCESS_KEY": self.place.secret,
            "AWS_REGION": self.place.region,
            "AWS_ENDPOINT_URL_KINESIS": self.place.url,
            "PYTHONUTF8": "1",
            **self.more,
        }

    def run(self, *arguments: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        ended = subprocess.run(
            command(*arguments), env=self.environment, input=data, capture_output=True, timeout=50, check=False
        )
        out, err = ended.stdout.decode(), ended.stderr.decode()
        return subprocess.CompletedProcess(ended.args, ended.returncode, out, err)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command with pipes."""
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(command(*arguments), env=self.environment, **(pipes | options))

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of bash, in which `kinstream` is the command line. Its status is that of the first failed command."""
        whole = f'kinstream() {{ "{sys.executable}" -m kinstream "$@"; }}\nset -o pipefail\n{script}'
        return subprocess.run(
            ["bash", "-c", whole], env=self.environment, capture_output=True, text=True, timeout=50, check=False
        )


def command(*arguments: str) -> list[str]:
    """Return the command line of a process."""
    return [sys.executable, "-m", "kinstream", *arguments]
