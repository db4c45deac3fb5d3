"""Seconds in which shards pass between the workers of a fleet: first record, joining, SIGTERM, SIGKILL. SQLite, one machine.

    python -m bench.handover [ROUNDS]

Records are written at a steady rate during all of it, and read by polling with default options. Writes bench/handover.json and
the table in the README.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import readme
from bench.ground import processor

from kinstream import Client, Credentials
from kinstream.cli.demo.fleet.crew import Crew
from kinstream.cli.demo.fleet.flow import Flow
from kinstream.cli.demo.fleet.process import Place
from kinstream.cli.demo.flights import events
from kinstream.cli.demo.reshard import create
from kinstream.cli.demo.show import Lines, standard_output
from kinstream.local import Server
from kinstream.version import __version__

RESULT = Path(__file__).with_suffix(".json")
SHARDS = 4
STEPS, STEP_SECONDS = 8, 2.0
FIGURES = {
    "first_record": "from the start of the first worker's process to its first record",
    "joins": "without a record of a shard, when another worker joins",
    "leaves": "without a record of a shard, when a worker gets SIGTERM",
    "killed": "from SIGKILL of a worker to the first record of its shard",
    "leader_killed": "from SIGKILL of the leader to the first record of its shard",
}


async def round_of(server: Server, folder: str) -> dict[str, list[float]]:
    """Run one fleet from its first worker to its last. Returns the seconds of each figure."""
    place = Place(server.url, server.region, server.access_key_id, server.secret_access_key, Path(folder) / "leases.db")
    credentials = Credentials(server.access_key_id, server.secret_access_key)
    show = Lines(standard_output(), 1_000_000)
    found: dict[str, list[float]] = {}
    async with Client(region=server.region, credentials=credentials, endpoint_url=server.url) as client:
        await create(client, SHARDS)
        written = events()
        show.begin("write", len(written))
        async with Crew(client.clock, place, len(written), show) as crew:
            ledger = crew.ledger
            async with Flow(client, written, STEPS, STEP_SECONDS, show) as flow:

                async def add(name: str) -> None:
                    await crew.start(name)
                    await crew.until(lambda: ledger.read_by(name), f"{name} to read a shard")
                    await flow.step_done()

                async def end(name: str, number: signal.Signals) -> None:
                    shards = ledger.holders()[name]
                    crew.send(name, number)
                    await crew.ended(name)
                    await crew.until(lambda: crew.reads(shards), f"the shards of {name} to be read")
                    await flow.step_done()

                await add("a")
                first = ledger.first_record("a")
                assert first is not None
                found["first_record"] = [first - crew.started("a")]
                await add("b")
                await end("b", signal.SIGTERM)
                await add("c")
                await end("c", signal.SIGKILL)
                await add("d")
                await end("a", signal.SIGKILL)
                gaps = {
                    name: [p.gap for p in ledger.passages if p.giver == name and p.killed is (name != "b")]
                    for name in "abc"
                }
                found |= {"leaves": gaps["b"], "killed": gaps["c"], "leader_killed": gaps["a"]}
                found["joins"] = [p.gap for p in ledger.passages if p.giver == "a" != p.taker and not p.killed]
    return found


def main(rounds: int) -> None:
    """Run the rounds, and write the medians and maxima."""
    seconds: dict[str, list[float]] = {name: [] for name in FIGURES}
    for number in range(rounds):
        with Server() as server, tempfile.TemporaryDirectory() as folder:
            for name, found in asyncio.run(round_of(server, folder)).items():
                seconds[name] += found
        print(f"round {number + 1}: " + ", ".join(f"{name} {len(values)}" for name, values in seconds.items()))
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "kinstream": __version__,
        "rounds": rounds,
        "figures": {
            name: {"median": statistics.median(values), "max": max(values), "count": len(values)}
            for name, values in seconds.items()
        },
    }
    for name, text in FIGURES.items():
        figure = result["figures"][name]
        print(
            f"{1000 * figure['median']:7,.0f} ms, at most {1000 * figure['max']:7,.0f} ms of {figure['count']:3}: {text}"
        )
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    readme.write()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
