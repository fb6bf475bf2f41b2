"""Limits of these tests are kept for their session, and not in the user's cache."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def kept(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTLAP_HOME", str(tmp_path_factory.mktemp("home")))
        yield
