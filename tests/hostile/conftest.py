"""Small models that tests of hostile input change: a language model, and an export of the kit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def micro_language(tmp_path_factory) -> Path:
    """Folder of a random language model; read only."""
    from shared_models import make_language_model  # here: most tests need no torch

    return make_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="session")
def exported(micro_language, tmp_path_factory) -> Path:
    """Folder of an untrained model in the form of an export; read only."""
    from shared_models import make_export

    return make_export(tmp_path_factory.mktemp("exported") / "model", micro_language)


@pytest.fixture
def own_export(exported, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "export"))
