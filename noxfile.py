"""Tests on every Python that is installed: `make test-all`, or `nox -- tests/story` for another part of the tests."""

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15", "3.14t", "3.15t"]
QUICK = ["tests/unit", "tests/property", "tests/conformance"]

nox.options.error_on_missing_interpreters = False  # they are reported as skipped
nox.options.download_python = "never"
nox.options.default_venv_backend = "venv"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Install kinstream, try it, and run the quick part of the tests, or what is named after `--`."""
    session.install(".[local,test]")
    session.run("python", "-I", "scripts/smoke.py")
    session.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(session.posargs or QUICK))
