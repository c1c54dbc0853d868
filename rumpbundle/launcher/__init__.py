"""Boot what was bundled, on this machine: what :mod:`rumpbundle.dev_launch` is made of.

``backend`` is the contract: a request becomes a *plan* (pure, shown by ``--dry-run``), a plan becomes a
*running* guest, and :class:`rumpbundle.launcher.session.Guest` watches any of them the same way.
"""
