"""`make install`: what is pinned, from where this machine's settings say, by uv or else by pip."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.install import REQUIREMENTS, install, requirement, settings_for_uv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LISTED = """\
global.cert='/etc/ssl/own.pem'
global.index-url='https://overridden.test/simple'
install.find-links='/opt/wheels /srv/wheels'
:env:.disable-pip-version-check='1'
:env:.extra-index-url='https://one.test/ https://two.test/'
:env:.index-url='https://user:it%27s@mirror.test/simple'
"""


def test_where_packages_come_from_is_handed_on() -> None:
    assert settings_for_uv(LISTED) == {
        "SSL_CERT_FILE": "/etc/ssl/own.pem",
        "UV_DEFAULT_INDEX": "https://user:it%27s@mirror.test/simple",
        "UV_FIND_LINKS": "/opt/wheels,/srv/wheels",
        "UV_INDEX": "https://one.test/ https://two.test/",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_a_pin_is_taken_with_all_its_hashes_and_no_other() -> None:
    text = "uvloop==1 \\\n    --hash=sha256:00\nuv==2 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via pincex\nwheel==3\n"

    assert requirement("uv", text) == "uv==2 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    with pytest.raises(LookupError):
        requirement("nothing", text)


def test_of_files_that_several_packages_hold_the_same_one_wins_on_every_machine() -> None:
    holders: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for distribution in distributions():
        record = distribution.read_text("RECORD") or ""
        for line in record.splitlines():
            name, digest, _size = line.rsplit(",", 2)
            if not name.startswith("..") and digest:
                holders[name][distribution.name] = digest
    shared = {name: found for name, found in holders.items() if len(set(found.values())) > 1}

    assert {name for name, found in shared.items() if "grpc-stubs" not in found} == set()
    there = Path(str(distribution.locate_file("")))
    for name, found in shared.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256((there / name).read_bytes()).digest()).rstrip(b"=").decode()
        assert found["grpc-stubs"] == f"sha256={digest}", (
            f"{name} is not that of grpc-stubs: `make install` writes it last"
        )


@pytest.mark.parametrize(
    ("failing", "expected", "status"),
    [
        pytest.param(set[str](), ["pip uv.txt", "uv dev.txt", "uv grpc-stubs.txt"], 0, id="uv"),
        pytest.param({"uv dev.txt"}, ["pip uv.txt", "uv dev.txt", "pip dev.txt"], 0, id="uv fails"),
        pytest.param({"pip uv.txt"}, ["pip uv.txt", "pip dev.txt"], 0, id="no uv"),
        pytest.param({"pip uv.txt", "pip dev.txt"}, ["pip uv.txt", "pip dev.txt"], 3, id="nothing"),
    ],
)
def test_pip_does_what_uv_cannot(failing: set[str], expected: list[str], status: int) -> None:
    ran: list[str] = []

    def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
        assert "--require-hashes" in command
        assert environment["HOME"] == "/anywhere"
        ran.append(f"{command[2]} {Path(command[-1]).name}")
        if ran[-1] == "uv dev.txt":
            assert command[-1] == str(REQUIREMENTS)
            assert environment["UV_INDEX"] == "https://own.test/", "what is said to uv itself counts"
        return 3 if ran[-1] in failing else 0

    environment = {"HOME": "/anywhere", "UV_INDEX": "https://own.test/"}
    assert install(run, LISTED, environment) == status
    assert ran == expected
