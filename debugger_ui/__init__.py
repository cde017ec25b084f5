"""The time-travel debugger in the browser: a web server that shows runs, moment by moment.

`kairos ui` starts it; `kairos dev` runs it beside the worker. It reads through Kairos' reader, acts through Kairos'
client, and holds no SQL. Pages are HTML that works by itself; scripts make the run page quick.

    serving     the process: socket, addresses, start and stop
    app         the routes
    guards      who may ask: hosts, token, CSRF, sizes; what every answer carries
    reads       sessions to the database, shared by all pages
    histories   runs as held in memory: events, keyframes, the state at any seq
    bundles     a bundle file in the place of the database
    opened      bundles and line traces that are open, and the folder of those that were dropped
    tracing     a line trace at one position
    timeline    the columns that the browser folds, and the transition table it folds them by
    watching    one look at the database for all live pages
    layout/     the drawing of the graph
    pages/      what each address answers
"""

from __future__ import annotations
