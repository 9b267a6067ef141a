"""A family of networks outside the package: the example of CONTRIBUTING.md. Importing it registers everything."""

from . import backbone, checkpoint  # noqa: F401
