"""Chainlit makes folders where it is imported, and its imports warn of what is not ours to change:
both are dealt with here, before any test of this folder is read."""

import os
import tempfile
import warnings

_app_root = tempfile.TemporaryDirectory()
os.environ["CHAINLIT_APP_ROOT"] = _app_root.name
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import chainlit.socket  # noqa: F401 - for what it registers
