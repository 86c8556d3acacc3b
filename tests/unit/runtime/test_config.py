"""The environment, read into typed values."""

import os
from pathlib import Path

import pytest

from exchange.runtime.config import ConfigError, Environment, RuntimeConfig, Secret, read_dotenv


def env(**values: str) -> Environment:
    return Environment(values)


def test_values_come_typed_and_defaults_stand_in():
    environment = env(PORT="8080", RATE="0.5", ON="Yes", HOME="~/x", NAME=" pincex ")
    assert environment.integer("PORT", minimum=1, maximum=65535) == 8080
    assert environment.number("RATE") == 0.5
    assert environment.boolean("ON") is True
    assert environment.path("HOME") == Path("~/x").expanduser()
    assert environment.required("NAME") == "pincex"
    assert environment.optional("NOTHING") is None
    assert environment.optional("NOTHING", "else") == "else"
    assert environment.integer("NOTHING", 7) == 7
    assert environment.boolean("NOTHING", False) is False
    assert environment.path("NOTHING", Path("/tmp")) == Path("/tmp")
    assert environment.choice("NOTHING", "a", ("a", "b")) == "a"


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda e: e.required("NOTHING"), "NOTHING is not set"),
        (lambda e: e.required("EMPTY"), "EMPTY is not set"),
        (lambda e: e.integer("NOTHING"), "NOTHING is not set"),
        (lambda e: e.integer("WORD"), "WORD is 'word'; it must be a whole number"),
        (lambda e: e.integer("SEVEN", minimum=8), "SEVEN is 7; it must be at least 8"),
        (lambda e: e.integer("SEVEN", maximum=6), "SEVEN is 7; it must be at most 6"),
        (lambda e: e.number("WORD"), "WORD is 'word'; it must be a number"),
        (lambda e: e.number("NAN"), "NAN is 'nan'; it must be a finite number"),
        (lambda e: e.number("INFINITE"), "INFINITE is 'inf'; it must be a finite number"),
        (lambda e: e.boolean("WORD"), "WORD is 'word'; it must be true or false"),
        (lambda e: e.choice("WORD", "a", ("a", "b")), "WORD is 'word'; it must be one of a, b"),
        (lambda e: e.path("NOTHING"), "NOTHING is not set"),
        (lambda e: e.secret("NOTHING"), "NOTHING is not set"),
    ],
)
def test_an_error_names_the_variable(read, message):
    with pytest.raises(ConfigError) as caught:
        read(env(WORD="word", SEVEN="7", NAN="nan", INFINITE="inf", EMPTY="  "))
    assert str(caught.value) == message


def test_a_secret_is_never_shown():
    environment = env(JWT_SECRET="swordfish")
    secret = environment.secret("JWT_SECRET")
    assert secret.reveal() == "swordfish"
    assert secret == Secret("swordfish") != Secret("other")
    assert hash(secret) == hash(Secret("swordfish"))
    assert bool(secret)
    assert not Secret("")
    assert (secret == "swordfish") is False
    for text in (repr(secret), str(secret), f"{secret}", repr([secret]), repr(environment)):
        assert "swordfish" not in text
    with pytest.raises(ConfigError, match="JWT_SECRET has 9 characters; it must have at least 32") as caught:
        environment.secret("JWT_SECRET", minimum_length=32)
    assert "swordfish" not in str(caught.value)
    assert environment.optional_secret("NOTHING") is None
    assert environment.optional_secret("JWT_SECRET") == secret


def test_dotenv_lines(tmp_path):
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\n\nexport A=1\nB = two words # why\nC='x # y'\nD=\"q=r\" # said\nE=\nURL=postgres://u:p@h/db#x\n"
    )
    assert read_dotenv(file) == {
        "A": "1",
        "B": "two words",
        "C": "x # y",
        "D": "q=r",
        "E": "",
        "URL": "postgres://u:p@h/db#x",
    }


@pytest.mark.parametrize("line", ["JUST_A_WORD", "1A=2", "A B=c", "A='open", 'A="x" y'])
def test_a_line_that_is_no_assignment_is_named(tmp_path, line):
    file = tmp_path / ".env"
    file.write_text(f"OK=1\n{line}\n")
    with pytest.raises(ConfigError, match=r"\.env:2"):
        read_dotenv(file)


def test_the_process_wins_over_the_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("PINCEX_A=file\nPINCEX_B=file\n")
    monkeypatch.setenv("PINCEX_A", "process")
    monkeypatch.chdir(tmp_path)
    environment = Environment.load()
    assert environment.required("PINCEX_A") == "process"
    assert environment.required("PINCEX_B") == "file"
    assert Environment.load(tmp_path / "none").optional("PINCEX_B") is None


def test_without_a_profile_it_is_production():
    config = RuntimeConfig.read(env(), "wallet")
    assert config.profile == "production"
    assert not config.development
    assert config.log_level == "INFO"
    assert config.debug_port is None
    assert config.instance.startswith("wallet-")
    assert config.instance.endswith(str(os.getpid()))


def test_the_development_profile_is_said():
    config = RuntimeConfig.read(
        env(PINCEX_PROFILE="Development", PINCEX_INSTANCE="w-1", LOG_LEVEL="debug", PINCEX_DEBUG_PORT="6060"), "wallet"
    )
    assert (config.development, config.instance, config.log_level, config.debug_port) == (True, "w-1", "DEBUG", 6060)
    with pytest.raises(ConfigError, match="PINCEX_PROFILE is 'staging'"):
        RuntimeConfig.read(env(PINCEX_PROFILE="staging"), "wallet")
