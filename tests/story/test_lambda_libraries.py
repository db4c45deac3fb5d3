"""A function on AWS Lambda with kinstream, aws-kinesis-agg and Powertools: the same results, and no more modules to import."""

from __future__ import annotations

from bench.awslambda import AGG, BOTH, IN_ONE, KINSTREAM, POWERTOOLS, PURE, RECORDS, measured, table


def test_libraries_read_and_fail_the_same_records_and_kinstream_loads_no_more_modules() -> None:
    loads, works = measured(1, 0.01)
    print(f"\n{table(loads, works)}")
    for workload, libraries in works.items():
        count = RECORDS * (IN_ONE if "aggregated" in workload else 1)
        assert {one.records for one in libraries.values()} == {count}
        assert len({one.digest for one in libraries.values()}) == 1
        (failed,) = {one.failed for one in libraries.values()}
        assert len(failed) == (1 if "failures" in workload else 0)
    modules = {library: one.modules for library, one in loads.items()}
    assert modules[PURE] <= modules[KINSTREAM] <= 1.3 * modules[AGG]
    assert 2 * modules[KINSTREAM] < modules[POWERTOOLS] < modules[BOTH]
