"""Which core a plugin asks for: decided as packaging does, without it where that is easy."""

from __future__ import annotations

import itertools

import pytest
from core_scripts import run_script
from packaging.requirements import Requirement

from probate.plugins.requirement import canonical_name, has_no_end, range_of, unmet

VERSIONS = ["0.1.0", "0.1", "0.2", "0.10.3", "1", "1.0.0", "1.0.1", "2!1.0", "1.0rc1", "1.0.dev0"]
NUMBERS = ["0", "0.1", "0.1.0", "0.2", "0.10", "1", "1.0", "1.0.0.1", "9"]
CONSTRAINTS = [
    "",
    *(
        f"{operator}{number}"
        for operator in (">=", "<=", "==", "!=", "<", ">")
        for number in NUMBERS
    ),
    *(f" >= {low} , < {high} " for low, high in itertools.pairwise(NUMBERS)),
    *(f"<{high},>={low}" for low, high in itertools.pairwise(NUMBERS)),
    "~=0.1",
    "==0.*",
    "===1.0",
    ">=1.0rc1",
    "<1.0.post1",
]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_requirement_is_decided_as_packaging_decides_it(version: str) -> None:
    """Whether it is decided here, or left to packaging."""
    for constraints in CONSTRAINTS:
        text = f"probate{constraints}"
        requirement = Requirement(text)
        is_met = requirement.specifier.contains(version, prereleases=True)

        assert unmet([text], version) == ("" if is_met else str(requirement)), text


@pytest.mark.parametrize(
    "text",
    [
        "click>=99",
        "probate-sockets>=99",
        "probate>=99; python_version < '3'",
        "probate>=99; extra == 'all'",
        "probate>=>=1",
        "",
        "@",
    ],
)
def test_what_asks_for_no_core_here_is_met(text: str) -> None:
    """Other projects, markers that do not hold, and what is no requirement."""
    assert unmet([text], "0.1.0") == ""


@pytest.mark.parametrize("name", ["Probate", "PROBATE"])
@pytest.mark.parametrize(
    "form", ["{}>=9", "{} (>=9)", "{}[cli]>=9", "{} >=9; python_version > '3'"]
)
def test_every_form_of_a_requirement_is_read(name: str, form: str) -> None:
    """Names in any case, extras, parentheses, markers; met ones before it do not hide it."""
    text = form.format(name)

    assert unmet(["click", "probate>=0.1", text], "0.1.0") == str(Requirement(text))


def test_names_are_compared_in_one_spelling() -> None:
    """PyPA, "Names and normalization"."""
    assert canonical_name("Acme_.Leases--X") == "acme-leases-x"


@pytest.mark.parametrize(
    ("version", "within", "without"),
    [
        ("0.1.0", ["0.1.0", "0.1.7"], ["0.0.9", "0.2.0", "1.0"]),
        ("0.10.3", ["0.10.0"], ["0.9.0", "0.11.0"]),
        ("1.2.3", ["1.2.0", "1.3"], ["1.1.9", "2.0.0"]),
        ("2.0", ["2.0.0"], ["3.0"]),
    ],
)
def test_the_range_of_a_core_ends_where_its_contract_does(
    version: str, within: list[str], without: list[str]
) -> None:
    """Before 1.0 with the next second number, then with the next first; it begins with its own."""
    requirement = f"probate{range_of(version)}"

    assert [unmet([requirement], each) for each in [version, *within]] == [""] * (1 + len(within))
    assert "" not in [unmet([requirement], each) for each in without]
    assert not has_no_end(["click", requirement])


def test_a_plain_requirement_takes_no_packaging() -> None:
    """Its import would make `probate plugins` a sixth slower."""
    script = run_script(
        "import sys; from probate.plugins.requirement import unmet; "
        "print(unmet(['probate<0.2,>=0.1'], '0.1.0') == '', 'packaging' in sys.modules)"
    )

    assert (script.stdout, script.stderr) == ("True False\n", "")
