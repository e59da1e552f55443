"""The settings an operator reads about are the settings there are."""

import re
from pathlib import Path

import pytest

from telltale.config import Settings

pytestmark = pytest.mark.unit

README = Path(__file__).parents[1] / "README.md"


def test_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    listed = re.findall(r"^\| `(TELLTALE_\w+)` \| `(.*?)` \| (.*?) \|$", README.read_text(), re.MULTILINE)
    fields = Settings.model_fields.items()
    assert listed == [(f"TELLTALE_{name.upper()}", str(f.default), f.description) for name, f in fields]
