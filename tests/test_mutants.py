"""The mutants still fit the code, without running them: that is what `make mutants` is for."""

from __future__ import annotations

import pytest

from tests.mutants._runner import ROOT, Mutant, mutated
from tests.mutants.mutants import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fits(mutant: Mutant) -> None:
    """Its old text is in the code exactly once, and the file that has its test is there."""
    mutated(mutant)
    assert mutant.tests
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).is_file()


def test_mutants_have_names_of_their_own() -> None:
    """A red line of the report leads to one mutant."""
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names))
