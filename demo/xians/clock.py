"""The server's clock, which tests may set wrong."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from demo.xians import notation


@dataclass(slots=True)
class Clock:
    """Wall time plus `skew_seconds`; `digits` forces the length of every written fraction (0 to 7)."""

    skew_seconds: float = 0.0
    digits: int | None = None

    def precise(self) -> datetime:
        """Now, to the microsecond: what a value made for one response carries."""
        return datetime.now(UTC) + timedelta(seconds=self.skew_seconds)

    def now(self) -> datetime:
        """Now, as the database keeps it: whole milliseconds, unless more digits are forced."""
        moment = self.precise()
        if self.digits is not None and self.digits > 3:
            return moment
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def written(self, moment: datetime) -> str:
        return notation.timestamp(moment, digits=self.digits)
