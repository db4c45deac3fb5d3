"""Architecture rules: imports between layers, modules without I/O, and code that is forbidden everywhere."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from pathlib import Path

import pytest

import kinstream
from kinstream import blocking, callbacks, config, testing
from kinstream.produce.lane import Lane

SOURCE = Path(kinstream.__file__).parent
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted(SOURCE.rglob("*.py"))
}

# Layers from top to bottom. A module may import packages of lower layers, and modules of its own package.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"pytest_plugin"},
    {"testing"},
    {"dlt", "ray", "spark"},
    {"__init__", "awslambda", "unwrap", "blocking", "callbacks", "leases"},
    {"producer", "consumer", "ranges"},
    {"stream"},
    {"produce", "consume"},
    {"aws", "local"},
    {"validate"},
    {"kpl", "sharding"},
    {
        "record",
        "config",
        "errors",
        "produce_errors",
        "events",
        "service_quotas",
        "clock",
        "credentials",
        "environment",
        "background",
        "speed",
        "failures",
        "forking",
        "frames",
        "functions",
        "interpreter",
        "lazy",
        "leave",
        "observe",
        "usage",
        "extra",
        "version",
    },
]
BASE = LAYERS[-1]
# The local Kinesis must not check the client with the client's own code.
LOCAL_MAY_USE = {"local", "sharding.hashkey", *BASE} - {"background", "speed", "failures", "leave", "observe"}

# Groups of the local Kinesis, from the network to the state. A group may import the groups below it, and no other.
LOCAL_GROUPS = ["server", "http", "control", "wire", "operations", "storage", "state"]

PURE = {
    "credentials", "environment",
    "errors", "produce_errors", "failures", "frames", "functions", "usage", "version", "extra", "lazy", "unwrap",
    "config", "record", "events", "service_quotas",
    "sharding.hashkey", "sharding.shardmap", "sharding.lineage",
    "kpl.message", "kpl.container", "kpl.builder", "kpl.expand", "validate",
    "produce.aggregate", "produce.batch", "produce.expire", "produce.lane", "produce.pace", "produce.route",
    "produce.bisection", "produce.deadlines", "produce.in_flight", "produce.order", "produce.schedule", "produce.settle",
    "produce.statistics", "produce.stream_state",
    "aws.attempts", "aws.cloudwatch",
    "aws.dynamodb", "aws.endpoint", "aws.error_response", "aws.event_decoder", "aws.kinesis", "aws.request",
    "aws.service", "aws.service_clock",
    "aws.sign", "aws.codec",
    "consume.deaggregate", "consume.lambda_event", "consume.start", "consume.statistics", "consume.turns", "consume.withhold",
    "consume.fleet.balance", "consume.fleet.claim", "consume.fleet.leader", "consume.fleet.mode", "consume.fleet.shard_sync",
    "consume.fleet.streams",
    "consume.fleet.view",
    "consume.deliver.arrow",
    "consume.deliver.record_batch", "consume.fetch.fetcher", "consume.fetch.page_size", "consume.fetch.polling_pace",
    "consume.fetch.position", "consume.fetch.subscribing_pace", "consume.lease.changes", "consume.lease.lease",
    "consume.lease.kcl_tables", "consume.lease.row", "consume.ranges.bounds", "consume.ranges.interval",
    "consume.ranges.offsets", "consume.ranges.tail",
    "cli.doctor.finding", "cli.doctor.judge.credentials", "cli.doctor.judge.endpoint", "cli.doctor.judge.fan_out",
    "cli.doctor.judge.lag", "cli.doctor.judge.load", "cli.doctor.judge.permissions", "cli.doctor.judge.quotas",
    "cli.doctor.judge.sample", "cli.doctor.show", "cli.tail.registered_name",
    "cli.printable", "cli.text_table", "cli.time_span", "cli.iam.policy", "cli.lag.report", "cli.leases.plan", "cli.leases.show",
    "cli.leases.survey", "cli.local.mapping.batch", "cli.local.mapping.event", "cli.local.mapping.failed_document",
    "cli.local.mapping.response",
    "consume.shard.cursor", "consume.shard.lifecycle", "consume.shard.progress", "consume.shard.retention",
    "consume.shard.until", "consume.shard.watch",
    "spark.options",
    "testing.order",
    "local.wire.event_encoder", "local.operations.requests", "local.operations.responses", "local.operations.constraints",
    "local.operations.naming",
    "local.state.model", "local.state.quotas", "local.state.request_error", "local.state.resharding",
    "local.state.sequence", "local.state.state",
}  # fmt: skip
ACTING = {"asyncio", "threading", "time", "os", "socket", "random", "secrets", "uuid", "logging", "sqlite3",
          "pyreqwest", "botocore", "hypercorn"}  # fmt: skip


def _imports(tree: ast.Module) -> set[str]:
    """Every module that is imported anywhere in `tree`, also late, but not for types alone."""
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if _ours(name) in MODULES else str(node.module) for name in names}
    return found


def _ours(name: str) -> str:
    return name.removeprefix("kinstream.")


def _layer(module: str) -> int:
    return next(i for i, packages in enumerate(LAYERS) if module.split(".")[0] in packages)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_down_only(module: str) -> None:
    package = module.split(".")[0]
    for name in _imports(MODULES[module]):
        if not name.startswith("kinstream"):
            continue
        target = _ours(name) if name != "kinstream" else "__init__"
        if package == "local":
            assert target in LOCAL_MAY_USE or target.startswith("local."), f"{module} imports {target}"
        same_package = target.split(".")[0] == package
        both_base = package in BASE and target in BASE
        assert same_package or both_base or _layer(target) > _layer(module), f"{module} imports {target}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("local.") and "__init__" not in name])
def test_groups_of_the_local_kinesis_import_lower_groups_only(module: str) -> None:
    group = _local_group(module)
    for name in _imports(MODULES[module]):
        assert name != "kinstream.local", f"{module} imports the public names, which import every group"
        if name.startswith("kinstream.local."):
            target = _local_group(_ours(name))
            allowed = LOCAL_GROUPS[LOCAL_GROUPS.index(group) :]
            assert target in allowed, f"{module} imports {target}, which is above {group}"


def test_every_module_of_the_local_kinesis_belongs_to_a_group() -> None:
    groups = {_local_group(name) for name in MODULES if name.startswith("local.") and name != "local.__init__"}
    assert groups == set(LOCAL_GROUPS)


def test_the_state_of_the_local_kinesis_is_pure() -> None:
    assert {name for name in MODULES if name.startswith("local.state.")} - {"local.state.__init__"} <= PURE


def _local_group(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", sorted(PURE & set(MODULES)))
def test_a_pure_module_imports_nothing_that_acts(module: str) -> None:
    assert {name.split(".")[0] for name in _imports(MODULES[module])} & ACTING == set()


def _changes(tree: ast.AST) -> list[tuple[int, ast.expr]]:
    """Return the expressions that are changed in place, with their lines: targets of assignments, and receivers of mutators."""
    found: list[tuple[int, ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            targets = [node.func.value]
        else:
            continue
        for target in targets:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            found += [(node.lineno, part.value if isinstance(part, ast.Subscript) else part) for part in parts]
    return found


MUTATORS = {"append", "appendleft", "clear", "extend", "extendleft", "insert", "pop", "popleft", "remove", "sort"}


def lane_changes(module: str, tree: ast.AST) -> list[str]:
    """Return the places that change a field of a lane: one that only lanes have, or any field of a name for a lane."""
    own = set(Lane.__slots__) - {
        "first_failure",
        "last_error",
        "pace",
        "plan",
        "shard_id",
        "hash_key",
        "in_flight",
        "retries",
    }
    names = re.compile(r"(^|\.)(lane|child|parent)$")
    return [
        f"{module}:{line}: {ast.unparse(target)}"
        for line, target in _changes(tree)
        if isinstance(target, ast.Attribute)
        and target.attr in Lane.__slots__
        and ast.unparse(target.value) != "self"
        and (target.attr in own or names.search(ast.unparse(target.value)))
    ]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("produce.") and name != "produce.lane"])
def test_only_the_methods_of_a_lane_change_its_fields(module: str) -> None:
    assert lane_changes(module, MODULES[module]) == []


def test_changes_of_a_lane_are_found() -> None:
    code = """
lane.in_flight += 1
part.lane.last_error = ""
one.waiting.clear()
lane.head, other = 0, 1
del one.waiting[:3]
child.retries[0] = 5
entry.first_failure = 1.0
self.waiting = []
"""
    assert len(lane_changes("bad", ast.parse(code))) == 6


def test_errors_refer_to_no_records_even_for_types() -> None:
    names = {node.module for node in ast.walk(MODULES["errors"]) if isinstance(node, ast.ImportFrom)}
    assert "kinstream.record" not in names
    assert "errors" in {_ours(name).split(".")[0] for name in _imports(MODULES["record"])}


def test_only_the_clock_imports_time() -> None:
    assert {module for module, tree in MODULES.items() if "time" in _imports(tree)} <= {"clock"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_its_role_in_its_first_line(module: str) -> None:
    docstring = ast.get_docstring(MODULES[module])
    assert docstring
    first = docstring.splitlines()[0]
    assert first.endswith((".", "?", ":"))
    assert len(first) > 20


LAZY = {
    "__init__": kinstream,
    "blocking.__init__": blocking,
    "callbacks.__init__": callbacks,
    "testing.__init__": testing,
}
"""The packages whose public names are imported when they are first used."""


def imported_for_types(module: str) -> dict[str, str]:
    """Return the names that a package imports for type checkers, with their modules."""
    blocks = [node for node in MODULES[module].body if isinstance(node, ast.If)]
    found = [one for block in blocks for one in block.body if isinstance(one, ast.ImportFrom)]
    return {alias.name: str(one.module) for one in found for alias in one.names}


def resolved_when_used(module: str) -> dict[str, str]:
    """Return the table of a package: the names that it imports when they are used, with their modules."""
    (call,) = (
        node
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "names_of"
    )
    table: dict[str, str] = ast.literal_eval(call.args[1])
    return table


@pytest.mark.parametrize("module", LAZY)
def test_public_names_are_those_that_are_imported_when_used_and_those_that_type_checkers_see(module: str) -> None:
    table = resolved_when_used(module)
    assert table == imported_for_types(module)
    assert LAZY[module].__all__ == list(table) == sorted(table)
    assert {name for name in table if not hasattr(LAZY[module], name)} == set()


@pytest.mark.parametrize("module", LAZY)
def test_no_public_name_is_that_of_a_submodule(module: str) -> None:
    # Importing the submodule would bind the name to it, so that the name would depend on the order of imports.
    package = module.removesuffix("__init__")
    submodules = {name.removeprefix(package).split(".")[0] for name in MODULES if name.startswith(package)}
    assert set(LAZY[module].__all__) & submodules == set()


def test_each_option_stands_in_one_group_and_in_its_docstring() -> None:
    groups = [g for g in vars(config).values() if isinstance(g, type) and dataclasses.is_dataclass(g)]
    assert {g.__name__ for g in groups} >= {"Timeouts", "RetryPolicy", "ConnectionOptions"}
    assert len({group.__name__ for group in groups}) == len(groups)  # an option is called by its group and its field
    for group in groups:
        for field in dataclasses.fields(group):
            described = re.search(rf"^\s+{field.name}: ", group.__doc__ or "", re.MULTILINE)
            assert described, f"{group.__name__}.{field.name} is not described"
            assert field.kw_only


def test_certificate_checks_cannot_be_switched_off() -> None:
    forbidden = (
        "danger_accept",
        "CERT_NONE",
        "check_hostname",
        "verify_mode",
        "_create_unverified_context",
        "tls_built_in_root",
    )
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert not [word for word in forbidden if word in text], path
        assert "verify=False" not in text.replace(" ", ""), path


def test_no_event_loop_policy_is_set_for_the_user() -> None:
    for module, tree in MODULES.items():
        assert "uvloop" not in _imports(tree), module
        assert "set_event_loop_policy" not in ast.unparse(tree), module


def test_the_client_does_not_import_what_only_some_need() -> None:
    import subprocess

    every = "; ".join(
        f"from {package} import *" for package in ("kinstream", "kinstream.blocking", "kinstream.callbacks")
    )
    code = f"{every}; import sys; assert 'kinstream.aws.transport' in sys.modules; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert loaded & {"botocore", "boto3", "hypercorn", "rich", "sqlite3", "kinstream.local", "h2"} == set()
