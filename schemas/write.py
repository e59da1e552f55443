"""Write the contracts that are made from code: `python schemas/write.py [FOLDER]`."""

import json
import sys
from pathlib import Path

from telltale.api.app import create_app, openapi_json
from telltale.config import Settings
from telltale.decode import json_reading
from telltale.decode.signals import signals_csv


def contracts() -> dict[str, str]:
    """Return file name → text of every generated contract."""
    return {
        "signals.csv": signals_csv(),
        "telemetry-reading.schema.json": json.dumps(json_reading.schema(), indent=2, ensure_ascii=False)
        + "\n",
        "openapi.json": openapi_json(create_app(Settings())).decode(),
    }


def main() -> None:
    """Write every generated contract into the folder given, or beside this file."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in contracts().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
