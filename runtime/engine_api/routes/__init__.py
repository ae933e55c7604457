"""The routes by subject: each module's ``ROUTES`` maps ``METHOD /path`` to its handler, ``*`` standing for one part."""
