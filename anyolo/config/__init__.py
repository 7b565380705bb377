"""Settings: frozen dataclasses (``schema``) and the one way to fill them (``load``)."""
