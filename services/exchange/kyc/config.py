"""What KYC needs to know, read once from the environment of the process that serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exchange.kyc.tiers import Tier, parse_daily, tiers
from exchange.runtime.config import ConfigError, Environment, Secret

if TYPE_CHECKING:
    from pathlib import Path

MIN_SECRET_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True)
class KycConfig:
    """See docs/DEVELOPMENT.md for the variables."""

    secret: Secret
    screening_list: Path | None
    tiers: tuple[Tier, ...]

    @classmethod
    def read(cls, environment: Environment) -> KycConfig:
        """Read and check everything. Raises ConfigError, naming the variable."""
        given = {
            1: ("PINCEX_KYC_TIER1_DAILY", environment.optional("PINCEX_KYC_TIER1_DAILY")),
            2: ("PINCEX_KYC_TIER2_DAILY", environment.optional("PINCEX_KYC_TIER2_DAILY")),
        }
        daily = {}
        for tier, (name, text) in given.items():
            try:
                if text is not None:
                    daily[tier] = parse_daily(text)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None
        listed = environment.optional("PINCEX_SCREENING_LIST")
        return cls(
            secret=environment.secret("PINCEX_KYC_SECRET", minimum_length=MIN_SECRET_CHARACTERS),
            screening_list=None if listed is None else environment.path("PINCEX_SCREENING_LIST"),
            tiers=tiers(daily),
        )
