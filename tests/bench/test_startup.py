"""What starting up costs: measured of real processes."""

import io

import pytest
from rich.console import Console

from rrl.bench import measure, startup


def test_a_command_is_measured_with_what_it_imports():
    reference = startup._case(startup.REFERENCE, startup.WHOLE + "import numpy, scipy")
    help_ = startup._case("rrl --help", startup.WHOLE + startup.COMMAND, "--help")
    assert (reference.facts["imports"], help_.facts["imports"]) == ("scipy", "")
    entries = measure.interleave([reference, help_], 1, startup.UNIT)
    assert all(0 < entry.rates[0] < 60 for entry in entries)
    assert entries[1].ratios == (entries[1].rates[0] / entries[0].rates[0],)
    startup.show(entries, Console(file=(shown := io.StringIO()), width=120))
    assert f"{entries[1].ratios[0]:.2f}" in shown.getvalue()


def test_a_run_is_measured_up_to_its_first_step_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seconds, imports = startup._run(startup.TO_THE_FIRST_STEP + startup.COMMAND, startup.RUN)
    assert seconds > 1 and {"torch", "mlflow"} <= {*imports}
    assert not [*tmp_path.iterdir()]


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(RuntimeError, match="there is no such gin file"):
        startup._run(startup.WHOLE + startup.COMMAND, "check no_such_file")
