"""What the documentation says of installing: commands of make, versions of Python, extras."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest

from tests.pages import PROJECT, Page

(CPU,) = set(re.findall(r"TORCH_INDEX=(\S+)", Page.of("machines.md").text))


def dry(*words: str) -> subprocess.CompletedProcess[str]:
    """What make would do in a fresh checkout."""
    command = ["make", "--dry-run", "--always-make", *words]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


def test_torch_without_cuda_comes_from_an_index_of_its_own() -> None:
    installed, started = (
        line for line in dry("demo", "TORCH=cpu").stdout.splitlines() if ".venv/bin/p" in line
    )
    assert (
        installed.startswith(f"PIP_EXTRA_INDEX_URL={CPU} ") and "-c constraints.txt -e '.[dev]'" in installed
    )
    assert started == ".venv/bin/personsearch demo"
    assert CPU not in dry("demo").stdout
    mirror = "https://mirror.example/cpu"
    assert f"PIP_EXTRA_INDEX_URL={mirror} " in dry("demo", "TORCH=cpu", f"TORCH_INDEX={mirror}").stdout
    refused = dry("demo", "TORCH=cpu", "TORCH_INDEX=")
    assert refused.returncode == 2 and "needs TORCH_INDEX" in refused.stderr
    refused = dry("demo", "TORCH=cup")
    assert refused.returncode == 2 and "choose cpu or cuda" in refused.stderr


def test_the_commands_of_make_on_the_page_are_there() -> None:
    commands = Page.of("machines.md").commands("make")
    assert len(commands) > 4
    for command in commands:
        assert dry(*command.split()[1:]).returncode == 0, command
    assert "python3.13 -m venv .venv" in dry("setup", "PYTHON=python3.13").stdout


@pytest.mark.parametrize("page", ["machines.md", "../README.md", "getting-started.md"])
def test_every_page_names_the_same_index(page: str) -> None:
    hosts = set(re.findall(r"https://download\S+?(?=[`\s])", Page.of(page).text))
    assert hosts <= {CPU}


def test_versions_of_python_are_the_same_everywhere() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    classified = [int(each) for each in re.findall(r"Python :: 3\.(\d+)", "\n".join(project["classifiers"]))]
    (untried,) = re.findall(r"Also 3\.(\d+), which has not been tried", Page.of("machines.md").text)
    assert project["requires-python"] == f">=3.{classified[0]},<3.{int(untried) + 1}"
    assert int(untried) == classified[-1] + 1
    assert classified == list(range(classified[0], classified[-1] + 1))
    assert f"Python 3.{classified[0]} to 3.{classified[-1]}" in Page.of("README.md").text
    assert ", ".join(f"3.{each}" for each in classified) in Page.of("machines.md").text
    assert f"Python 3.{classified[0]} to 3.{classified[-1]}" in (PROJECT / "constraints.txt").read_text()


def test_extras_on_the_page_are_those_of_the_package() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    (listed,) = re.findall(r"^Extras: (.*?)\.$", Page.of("machines.md").text, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", listed)) == set(project["optional-dependencies"])
