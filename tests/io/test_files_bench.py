"""The measurement of how late a loop is beside file work, at a small size: it measures, and files do not stop the loop."""

import pytest

from bench import files


def test_the_measurement_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert files.main(["fibers", "--size", "16", "--rounds", "1", "--seconds", "0.05"]) == 0
    table = capsys.readouterr().out
    assert [line.split()[1] for line in table.splitlines()[2:]] == list(files.PHASES)


def test_percentiles() -> None:
    values = [float(number) for number in range(1000)]
    assert files.percentile(values, 50) == 500
    assert files.percentile(values, 99.9) == 999
    assert files.percentile([], 50) == 0
