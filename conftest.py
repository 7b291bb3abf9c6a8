"""Fixtures of the package's tests, for those of the projects too."""

pytest_plugins = ["shared_fixtures"]
