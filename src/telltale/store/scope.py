"""Whose data a query may touch: a required argument of every read that reaches a vehicle.

Two walls. The first is in the SQL of each function; the second is row-level security, which reads the
scope from the transaction: outside `scoped()` the API's role sees no vehicle, alert or event at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from telltale.errors import SettingsError

Role = Literal["dealer", "quality", "ops"]
ROLES: Final[tuple[Role, ...]] = ("dealer", "quality", "ops")


@dataclass(frozen=True, slots=True)
class Scope:
    """A role and, for dealers, the dealer's code: what its holder may see."""

    role: Role
    dealer: str | None = None

    def __post_init__(self) -> None:
        if (self.role == "dealer") != bool(self.dealer):
            raise SettingsError(
                f"scope: role dealer needs a dealer code and no other role has one; got role {self.role!r}, "
                f"dealer {self.dealer!r}"
            )

    @property
    def setting(self) -> str:
        """Return what `telltale.scope` is set to: 'fleet', or 'dealer:<code>'."""
        return f"dealer:{self.dealer}" if self.dealer else "fleet"

    @property
    def may_edit(self) -> bool:
        """Tell whether its holder may acknowledge and close alerts; operations watch the machine only."""
        return self.role != "ops"

    def sees(self, dealer: str | None) -> bool:
        """Tell whether something of this dealer lies inside the scope."""
        return self.dealer is None or self.dealer == dealer


FLEET: Final = Scope("quality")


@asynccontextmanager
async def scoped(pool: Any, scope: Scope) -> AsyncIterator[Any]:
    """Lend a connection inside a transaction that sees this scope and nothing else."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('telltale.scope', $1, true)", scope.setting)
        yield connection
