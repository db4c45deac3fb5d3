"""The list of known deviations is about cases that there are, and says each thing once."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contract.servers.deviations import deviations
from tests.contract.servers.processes import RECIPES


def test_every_line_is_about_a_case_and_a_server() -> None:
    for line in deviations().lines:
        module, _, function = line.function.partition("::")
        source = (Path(__file__).parent / f"{module}.py").read_text()
        assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), line
        assert line.server in RECIPES
        assert line.instead


def test_no_case_has_two_lines_for_a_server() -> None:
    lines = deviations().lines
    assert len({(line.server, line.case) for line in lines}) == len(lines)
    whole = {(line.server, line.case) for line in lines if not line.parameters}
    assert not [line for line in lines if line.parameters and (line.server, line.function) in whole]


def test_our_own_list_is_empty() -> None:
    assert not [line for line in deviations().lines if line.server == "kinstream"]
