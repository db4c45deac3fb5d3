"""Plant faults in a copy of the library, one after another, and check that a test finds each.

The faults are those that a change of the fleet could bring in unnoticed: a missing condition of a write, a clock that is read too
late, a step that is left out. Each names the tests that must fail with it. They are bounded and deterministic. First, all of them
must pass without a fault. Prints a line for each fault, and ends with status 1 if one is not found.
`tests/architecture/test_planted_faults.py` checks that the list fits the source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPY = ROOT / "build" / "planted"
FLEET = "src/kinstream/consume/fleet"
LEASE = "src/kinstream/consume/lease"
CHANGES = "tests/unit/consume/lease/test_changes.py"
HELD = "tests/unit/consume/fleet/test_held_lease.py"
VIEW = "tests/unit/consume/fleet/test_view.py"
RESHARDS = "tests/unit/consume/fleet/test_member_reshards.py"
MEMBER_FAULTS = "tests/unit/consume/fleet/test_member_faults.py"
BALANCE = "tests/unit/consume/fleet/test_balance.py"
LEADER = "tests/unit/consume/fleet/test_leader.py"
CLAIM = "tests/unit/consume/fleet/test_claim.py"
LYING = "tests/simulation/test_fleet.py::test_a_table_that_lies_about_writes_harms_nothing"
CHAOS = "tests/simulation/test_fleet.py::test_no_record_is_lost_and_no_shard_has_two_readers_whatever_happens"
SEEDS = "20"
"""Number of seeds of simulations: ten of CHAOS, two of LYING."""


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: Short description of the wrong behavior.
        path: The file.
        old: Text that occurs once in it.
        new: The faulty text.
        found_by: Tests of which one must fail.
    """

    name: str
    path: str
    old: str
    new: str
    found_by: str


FAULTS = [
    Fault(
        "fence of an owner without the owner",
        f"{LEASE}/changes.py",
        'return {"leaseCounter": lease.counter, "leaseOwner": lease.owner}',
        'return {"leaseCounter": lease.counter}',
        HELD,
    ),
    Fault(
        "checkpoint without a fence",
        f"{LEASE}/changes.py",
        'return _update(lease, Update(set={"leaseCounter": lease.counter + 1, **columns}, remove=remove), _fence(lease))',
        'return _update(lease, Update(set={"leaseCounter": lease.counter + 1, **columns}, remove=remove), {})',
        LYING,
    ),
    Fault(
        "a write that timed out is recognized by its counter alone",
        f"{LEASE}/changes.py",
        "return all(stored.values.get(name) == value for name, value in _written(expected).items())",
        'return stored.values.get("leaseCounter") == expected.get("leaseCounter")',
        HELD,
    ),
    Fault(
        "a write that timed out is recognized by its counter alone, in a simulation",
        f"{LEASE}/changes.py",
        "return all(stored.values.get(name) == value for name, value in _written(expected).items())",
        'return stored.values.get("leaseCounter") == expected.get("leaseCounter")',
        LYING,
    ),
    Fault(
        "a handoff begins without a check of the owner",
        f"{LEASE}/changes.py",
        'return _update(lease, update, {"leaseOwner": lease.owner, "checkpointOwner": None})',
        "return _update(lease, update, {})",
        CHANGES,
    ),
    Fault(
        "unresolved writes are forgotten",
        f"{FLEET}/held_lease.py",
        "self._unresolved = self._unresolved if self._unresolved is not None else sent",
        "self._unresolved = None",
        HELD,
    ),
    Fault(
        "only the last unresolved write is remembered",
        f"{FLEET}/held_lease.py",
        "self._unresolved = self._unresolved if self._unresolved is not None else sent",
        "self._unresolved = sent",
        HELD,
    ),
    Fault(
        "release without the last checkpoint",
        f"{FLEET}/held_lease.py",
        "later = position if position is not None and position > lease.checkpoint else None",
        "later = None",
        CHAOS,
    ),
    Fault(
        "a lease expires by the time of the response",
        f"{FLEET}/held_lease.py",
        "self._known(written.row, sent if self._unresolved is None else self._unresolved)",
        "self._known(written.row, self._terms.now())",
        HELD,
    ),
    Fault(
        "an expired lease is still written",
        f"{FLEET}/held_lease.py",
        "if not self.ended and self._terms.now() >= self.expires:",
        "if not self.ended and self._terms.now() >= self.expires + 60:",
        HELD,
    ),
    Fault(
        "checkpoints go back",
        f"{FLEET}/held_lease.py",
        "if rewinds or position > lease.checkpoint",
        "if rewinds or position != lease.checkpoint",
        HELD,
    ),
    Fault(
        "a lease that was lost and regained counts as held all the time",
        f"{FLEET}/held_lease.py",
        "if holder != me or ended or not 0 <= stored.counter - self._lease.counter <= own_writes:",
        "if holder != me or ended:",
        HELD,
    ),
    Fault(
        "a handoff that was forced continues",
        f"{FLEET}/held_lease.py",
        "if holder != me or ended or not 0 <= stored.counter - self._lease.counter <= own_writes:",
        "if ended or not 0 <= stored.counter - self._lease.counter <= own_writes + 1:",
        HELD,
    ),
    Fault(
        "leases of live workers count as expired",
        f"{FLEET}/view.py",
        "if lease.reader in self.dead or lease.seen - lease.moved > self.failover:",
        "if lease.reader in self.dead or lease.seen - lease.moved > self.failover / 2:",
        VIEW,
    ),
    Fault(
        "a child is read before its parent was completed",
        f"{FLEET}/holdings.py",
        "if row is not None and not lease_of(row).checkpoint.ended:",
        "if row is not None and lease_of(row).owner is None:",
        RESHARDS,
    ),
    Fault(
        "a handoff lasts as long as the application wants",
        f"{FLEET}/holdings.py",
        "if forced is not None and now >= forced:",
        "if forced is not None and now >= forced + 3_600:",
        MEMBER_FAULTS,
    ),
    Fault(
        "a lock is taken from a leader that is alive",
        f"{FLEET}/leader.py",
        "if not (leader.expired or leader.released or ended or leader.owner == me):",
        "if leader.owner == me:",
        LEADER,
    ),
    Fault(
        "a restarted worker renews a lease that it had handed off",
        f"{FLEET}/claim.py",
        "return [changes.renew(lease.lease) for lease in view.held_by(me) if lease.lease.checkpoint_owner is None]",
        "return [changes.renew(lease.lease) for lease in view.held_by(me)]",
        CLAIM,
    ),
    Fault(
        "leases above the share are not moved",
        f"{FLEET}/balance.py",
        "            found += movable[:above]\n",
        "",
        BALANCE,
    ),
]


def main() -> int:
    """Plant each fault and run its tests. Return the exit status."""
    shutil.rmtree(COPY, ignore_errors=True)
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, COPY / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", COPY)
    for tests in sorted({fault.found_by for fault in FAULTS}):
        if not _pass(tests):
            print(f"{tests} fails without a fault", file=sys.stderr)
            return 1
    missed = 0
    for fault in FAULTS:
        file = COPY / fault.path
        right = file.read_text()
        file.write_text(right.replace(fault.old, fault.new))
        found = not _pass(fault.found_by)
        file.write_text(right)
        missed += not found
        print(f"{'found' if found else 'NOT FOUND':10} {fault.name} ({fault.found_by})", flush=True)
    print(f"{len(FAULTS) - missed} of {len(FAULTS)} faults were found")
    return 1 if missed else 0


def _pass(tests: str) -> bool:
    """Return True if tests pass with the copy."""
    path = f"{COPY / 'src'}{os.pathsep}{COPY}"
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "KINSTREAM_SEEDS": SEEDS}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests]
    status = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, check=False).returncode
    if status not in (0, 1):
        raise RuntimeError(f"pytest ended with status {status}: {' '.join(command)}")
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
